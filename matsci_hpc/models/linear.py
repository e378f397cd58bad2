"""Linear layers whose matrix products go through oneDNN in single precision on a CPU.

PyTorch sends float32 products on x86 to MKL, which is slow on AMD processors: 83 against oneDNN's 205 GFLOP/s
for [19200, 128] x [128, 128] on one core of an EPYC with AVX-512. oneDNN comes with the same PyTorch and
chooses its code by what the processor can do. It is used on every x86 machine, and never by a timing, so that
the ranks of a job and its later lives take the same path. Everything else (other types, other devices,
autocast) is plain PyTorch.
"""

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ONEDNN = (
    platform.machine().lower() in {"x86_64", "amd64"}
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class _Linear(torch.autograd.Function):
    """`x @ weight.T + bias` for 2-D operands; its derivatives are products of the same form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        # Without gaps between rows: for a slice of a wider matrix oneDNN falls back to its reference loops,
        # a hundred times slower.
        if not (weight.is_contiguous() or weight.t().is_contiguous()):
            weight = weight.contiguous()
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        gradient = gradients[0]
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight.t()) if needs_x else None,
            linear(gradient.t(), x.t()) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, differentiable to any order.

    Args:
        x: float [N, K].
        weight: float [M, K].
        bias: float [M].

    Returns:
        Float [N, M].
    """
    if (
        _ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        # oneDNN refuses operands without elements.
        and x.numel() > 0
    ):
        result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return functional.linear(x, weight, bias)


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
        modules += [nn.SiLU()] * (i > 0)
        modules.append(Linear(widths[i], widths[i + 1]))
    return nn.Sequential(*modules)
