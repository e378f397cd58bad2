"""Linear layers whose matrix products go through oneDNN in single precision on a CPU of AMD.

PyTorch sends float32 products on x86 to MKL, which is slow on some AMD processors: 83 against oneDNN's 205 GFLOP/s
for [19200, 128] x [128, 128] on one core of an EPYC with AVX-512. oneDNN comes with the same PyTorch and chooses its
code by what the processor can do. On a Xeon with AMX, whole steps take 10 to 19 % longer with it
(benchmarks/step.py). So the maker of the processor decides, and never a timing: ranks of a job and its later lives
should take the same path. Everything else (other types, other devices, autocast) is plain PyTorch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from matsci_hpc.models.activation import Silu, silu, silu_backward
from matsci_hpc.models.operators import define_operator
from matsci_hpc.processor import this_processor

AMD = {"AuthenticAMD", "HygonGenuine"}
"""Vendors: AMD, and Hygon, which builds them by licence."""
_ONEDNN = (
    this_processor().vendor in AMD
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def _fits_onednn(x: Tensor, weight: Tensor) -> bool:
    # oneDNN refuses operands without elements.
    return _ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` without derivative: every large matrix product of a step is a call of this."""
    if not _fits_onednn(x, weight):
        return functional.linear(x, weight, bias)
    # Without gaps between rows: for a slice of a wider matrix oneDNN falls back to its reference loops,
    # a hundred times slower.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return result


_NO_PARAMETERS: list[None] = []
"""Not empty where nobody asks for derivatives of parameters. Seen by all threads: autograd has its own for each GPU."""


@contextmanager
def no_derivatives_of_parameters() -> Iterator[None]:
    """Around `torch.autograd.grad` of inputs alone: functions made in Python are not told, and would derive weights."""
    _NO_PARAMETERS.append(None)
    try:
        yield
    finally:
        _NO_PARAMETERS.pop()


def _of_parameters(*operands: Tensor | None) -> bool:
    """Whether operands are parameters or parts of such, and no results of what came before."""
    return all(
        each is None or isinstance(each, nn.Parameter) or isinstance(each._base, nn.Parameter)  # noqa: SLF001
        for each in operands
    )


def _wanted(ctx: Any) -> tuple[bool, bool, bool]:
    """Which derivatives of (x, weight, bias) to compute."""
    of_x, of_weight, of_bias = ctx.needs_input_grad
    if _NO_PARAMETERS and ctx.of_parameters:
        return of_x, False, False
    return of_x, of_weight, of_bias


class _Linear(torch.autograd.Function):
    """`x @ weight.T + bias` for 2-D operands; its derivatives are products of the same form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.of_parameters = _of_parameters(weight, bias)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = _wanted(ctx)
        return (
            linear(gradient, weight.t()) if of_x else None,
            linear(gradient.t(), x.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


class _SiluLinear(torch.autograd.Function):
    """`silu(x) @ weight.T + bias`, of which only x is kept: silu(x) costs less to compute again than to read."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.of_parameters = _of_parameters(weight, bias)
        return multiply(functional.silu(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = _wanted(ctx)
        times = linear if torch.is_grad_enabled() else multiply
        return (
            silu_backward(times(gradient, weight.t()), x) if of_x else None,
            times(gradient.t(), functional.silu(x).t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _shape_of_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    return x.new_empty((x.shape[0], weight.shape[0]))


_linear_operator = define_operator(
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor", multiply, _shape_of_product
)
"""`_Linear` for the compiler, which would send the product to MKL."""


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(inputs[0], inputs[1])


def _linear_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    return (
        _linear_operator(gradient, weight.t(), None) if needs_x else None,
        _linear_operator(gradient.t(), x.t(), None) if needs_weight else None,
        gradient.sum(0) if needs_bias else None,
    )


torch.library.register_autograd("matsci_hpc::linear", _linear_backward, setup_context=_keep_operands)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, differentiable to any order.

    Args:
        x: float [N, K].
        weight: float [M, K].
        bias: float [M].

    Returns:
        Float [N, M].
    """
    if torch.is_autocast_enabled(x.device.type) or not _fits_onednn(x, weight):
        return functional.linear(x, weight, bias)
    apply = _linear_operator if torch.compiler.is_compiling() else _Linear.apply
    result: Tensor = apply(x, weight, bias)
    return result


def silu_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`silu(x) @ weight.T + bias`: `linear` of activations that nothing else reads. Arguments as in `linear`."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return linear(silu(x), weight, bias)
    result: Tensor = _SiluLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class Linear(nn.Linear):
    """`torch.nn.Linear` for [N, K] inputs, through `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name torch gave it
        """From [N, in_features] to [N, out_features]."""
        return linear(input, self.weight, self.bias)


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 2) -> nn.Sequential:
    """`layers` linear layers with SiLU between them, all hidden ones of the same width."""
    widths = [inputs, *[hidden] * (layers - 1), outputs]
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [Silu()] * (i > 0)
        modules.append(Linear(widths[i], widths[i + 1]))
    return nn.Sequential(*modules)
