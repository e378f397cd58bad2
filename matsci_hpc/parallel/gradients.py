"""All gradients in one flat buffer, so that one collective sums them and no copy is made."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


class FlatGradients:
    """Gradients of a model as views of one buffer, into which backward accumulates.

    Args:
        parameters: all of one type and device, in the order that their gradients take in the buffer.

    Attributes:
        parameters: those that are trained, in this order.
        buffer: float [number of parameters], zero at first.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = [each for each in parameters if each.requires_grad]
        first = self.parameters[0]
        total = sum(each.numel() for each in self.parameters)
        self.buffer = torch.zeros(total, dtype=first.dtype, device=first.device)
        start = 0
        for each in self.parameters:
            each.grad = self.buffer[start : start + each.numel()].view_as(each)
            start += each.numel()

    def zero(self) -> None:
        """Forget the gradients of the last step."""
        self.buffer.zero_()

    def norm(self) -> Tensor:
        """Euclidean norm over all parameters."""
        norm: Tensor = torch.linalg.vector_norm(self.buffer)
        return norm

    def clip(self, norm: Tensor, max_norm: float) -> None:
        """Scale the gradients so that their norm, now `norm`, is at most `max_norm`."""
        self.buffer.mul_((max_norm / (norm + 1e-12)).clamp(max=1.0))
