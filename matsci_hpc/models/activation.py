"""SiLU, with a derivative whose own derivatives are cheap.

    silu(x)   = x s(x),  s(x) = 1 / (1 + exp(-x))
    silu'(x)  = s (1 + x (1 - s))
    silu''(x) = s (1 - s) (2 + x (1 - 2 s))

Where a derivative of its derivative may be asked for, PyTorch puts silu' together of five operations, each of which
keeps what it read. Within `derived_twice` it stays one operation, so that learning forces takes fewer passes over
memory. Elsewhere PyTorch's own costs less per call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TWICE: list[None] = []
"""Not empty within `derived_twice`."""


@contextmanager
def derived_twice() -> Iterator[None]:
    """Around the computation of what is learned by a derivative of it."""
    _TWICE.append(None)
    try:
        yield
    finally:
        _TWICE.pop()


class _Silu(torch.autograd.Function):
    """`silu(x)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.silu(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return silu_backward(gradients[0], x)


class _SiluBackward(torch.autograd.Function):
    """`gradient * silu'(x)`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, x)
        result: Tensor = torch.ops.aten.silu_backward(gradient, x)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        outer = gradients[0]
        gradient, x = ctx.saved_tensors
        of_gradient, of_x = ctx.needs_input_grad
        slope = None
        if of_x:
            s = torch.sigmoid(x)
            slope = outer * gradient * (s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s)))
        return silu_backward(outer, x) if of_gradient else None, slope


def silu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """`gradient * silu'(x)`, differentiable to any order."""
    result: Tensor
    if not torch.is_grad_enabled():
        result = torch.ops.aten.silu_backward(gradient, x)
        return result
    result = _SiluBackward.apply(gradient, x)  # type: ignore[no-untyped-call]
    return result


def silu(x: Tensor) -> Tensor:
    """`torch.nn.functional.silu`, differentiable to any order."""
    if torch.compiler.is_compiling() or not _TWICE:
        return functional.silu(x)
    result: Tensor = _Silu.apply(x)  # type: ignore[no-untyped-call]
    return result


class Silu(torch.nn.Module):
    """`silu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return silu(x)
