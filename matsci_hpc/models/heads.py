"""From the embedding of a graph to its targets."""

import math

import torch
from torch import Tensor, nn

from matsci_hpc.errors import UserInputError
from matsci_hpc.models.linear import mlp
from matsci_hpc.targets import TargetSpec


def outputs_of(name: str, spec: TargetSpec) -> int:
    """Numbers per graph that a head for this target gives."""
    if spec.kind in {"regression", "binary"}:
        return 1
    if not spec.classes:
        raise UserInputError(f"target {name!r} is of kind {spec.kind!r} but its data set names no classes")
    return len(spec.classes)


class Head(nn.Module):
    """A multilayer perceptron for one target.

    What it returns is what the loss compares: the standardised value `(value - mean) / std` for regression,
    logits for the other kinds. The scaling is kept in buffers, so a checkpoint says what its numbers mean.

    Args:
        name: of the target, for messages.
        spec: kind and classes.
        embedding_width: features of a graph.
        layers: linear layers, at least 1.
        mean: of a regression target over the training samples, in the target's unit.
        std: its standard deviation, in the target's unit; 0, a constant target, counts as 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        spec: TargetSpec,
        embedding_width: int,
        layers: int,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(mean) and math.isfinite(std) and std >= 0.0):
            raise UserInputError(f"target {name!r} cannot be scaled by mean {mean} and deviation {std}")
        self.kind = spec.kind
        self.net = mlp(embedding_width, embedding_width, outputs_of(name, spec), layers)
        if spec.kind == "regression":
            self.register_buffer("mean", torch.tensor(mean))
            self.register_buffer("std", torch.tensor(std if std > 0.0 else 1.0))

    def forward(self, embedding: Tensor) -> Tensor:
        """From [G, embedding_width] to [G] (regression, binary) or [G, classes] (class, multilabel)."""
        output: Tensor = self.net(embedding)
        return output.squeeze(1) if self.kind in {"regression", "binary"} else output

    def standardise(self, values: Tensor) -> Tensor:
        """Values of the target, in its unit, as the loss compares them with the output."""
        return (values - self.mean) / self.std if self.kind == "regression" else values

    def physical(self, output: Tensor) -> Tensor:
        """The output in the target's unit (regression) or as probabilities (the other kinds)."""
        if self.kind == "regression":
            return output * self.std + self.mean
        return torch.softmax(output, dim=1) if self.kind == "class" else torch.sigmoid(output)
