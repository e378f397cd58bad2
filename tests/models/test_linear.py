import pytest
import torch
from torch.nn import functional

from matsci_hpc.models import linear as module
from matsci_hpc.models.activation import derived_twice, silu
from matsci_hpc.models.linear import Linear, linear, no_derivatives_of_parameters, silu_linear


def operands(rows, inputs, outputs):
    generator = torch.Generator().manual_seed(3)
    wide = torch.randn(outputs, inputs + 2, generator=generator)
    return (
        torch.randn(rows, inputs, generator=generator).requires_grad_(),
        wide[:, :inputs].requires_grad_(),  # rows that are not contiguous, as those of a split layer
        torch.randn(outputs, generator=generator).requires_grad_(),
    )


@pytest.mark.parametrize("sizes", [(7, 5, 3), (1, 4, 1), (64, 33, 1), (0, 5, 3)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
def test_same_as_torch_with_first_and_second_derivatives(sizes, with_bias, onednn, monkeypatch):
    monkeypatch.setattr(module, "_ONEDNN", onednn and torch.backends.mkldnn.is_available())

    def numbers(function):
        x, weight, bias = operands(*sizes)
        result = function(x, weight, bias if with_bias else None)
        grads = torch.autograd.grad((result**2).sum(), (x, weight), create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in grads), (x, weight))
        return [result, *grads, *second]

    torch.testing.assert_close(numbers(linear), numbers(functional.linear), rtol=1e-4, atol=1e-4)


def test_autocast_is_left_to_torch():
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(4, 2)(torch.ones(3, 4)).dtype == torch.bfloat16


def test_only_wanted_gradients():
    x, weight, bias = operands(6, 4, 2)
    linear(x.detach(), weight, bias).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(bias.grad, torch.full((2,), 6.0))


@pytest.mark.parametrize("function", [linear, silu_linear])
def test_derivatives_of_inputs_alone_derive_no_parameters(function, monkeypatch):
    monkeypatch.setattr(module, "_ONEDNN", torch.backends.mkldnn.is_available())
    products = []
    multiply = module.multiply
    monkeypatch.setattr(module, "multiply", lambda *operands: products.append(operands) or multiply(*operands))
    x, whole, bias = (each.detach().requires_grad_() for each in operands(6, 4, 2))
    bias = torch.nn.Parameter(bias.detach())
    made = torch.nn.Parameter(whole.detach())[:, :4]  # a part of a parameter, as in a split layer
    for weight, expected in ((made, 1), (whole * 1.0, 2)):  # one that was computed may lead to the inputs
        result = function(x, weight, bias).sum()
        products.clear()
        with no_derivatives_of_parameters():
            (slope,) = torch.autograd.grad(result, x, create_graph=True)
        assert len(products) == expected
        torch.testing.assert_close(slope, torch.autograd.grad(function(x, weight, bias).sum(), x)[0])


def test_a_silu_for_derivatives_of_derivatives():
    x = torch.linspace(-8, 8, 41, dtype=torch.float64).requires_grad_()
    plain, found = functional.silu(x), None
    with derived_twice():
        found = silu(x)
    assert found.grad_fn is not plain.grad_fn
    for _ in range(4):
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
        weight = torch.cos(torch.arange(41.0))
        (plain,), (found,) = (torch.autograd.grad((y * weight).sum(), x, create_graph=True) for y in (plain, found))
