import pytest
import torch

from matsci_hpc.parallel.gradients import FlatGradients


def test_backward_accumulates_into_the_buffer():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    plain = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    gradients = FlatGradients(model.parameters())
    for _ in range(2):
        gradients.zero()
        model(x).sum().backward()
        torch.testing.assert_close(gradients.buffer, torch.cat([each.reshape(-1) for each in plain]))
    assert all(each.grad.data_ptr() >= gradients.buffer.data_ptr() for each in model.parameters())


def test_clipping_scales_the_whole_and_only_when_needed():
    layer = torch.nn.Linear(2, 2)
    gradients = FlatGradients(layer.parameters())
    gradients.buffer.copy_(torch.tensor([3.0, 4, 0, 0, 0, 0]))
    gradients.clip(gradients.norm(), 10.0)
    assert float(gradients.norm()) == pytest.approx(5.0)
    gradients.clip(gradients.norm(), 1.0)
    assert float(gradients.norm()) == pytest.approx(1.0)
    assert float(layer.weight.grad[0, 1]) == pytest.approx(0.8)
