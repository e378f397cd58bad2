"""From the embedding of a graph to its targets."""

import math

import torch
from torch import Tensor, nn

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.linear import mlp
from matsci_hpc.models.scaling import atom_counts, of_composition
from matsci_hpc.structure import MAX_ATOMIC_NUMBER
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

    What it returns is what the loss compares: the standardised value (`scaling.py`) for regression, logits for the
    other kinds. The scaling is kept in buffers, so a checkpoint says what its numbers mean.

    Args:
        name: of the target, for messages.
        spec: kind and classes.
        embedding_width: features of a graph.
        layers: linear layers, at least 1.
        mean: of a regression target over the training samples, in the target's unit.
        std: its standard deviation, in the target's unit; 0, a constant target, counts as 1.
        extensive: whether the value grows with the number of atoms, so that the head predicts it per atom; `mean` and
            `std` are per atom then.
        references: whether the composition accounts for a part of the value, by an energy of each element.
    """

    mean: Tensor
    std: Tensor
    references: Tensor
    """Energies of the elements, [119] by atomic number, per atom and in the target's unit."""
    mean_per_atom: Tensor
    """Of an extensive target over the training samples: what a head that knows nothing would say."""

    def __init__(
        self,
        name: str,
        spec: TargetSpec,
        embedding_width: int,
        layers: int,
        mean: float = 0.0,
        std: float = 1.0,
        extensive: bool = False,
        references: bool = False,
    ) -> None:
        super().__init__()
        if not (math.isfinite(mean) and math.isfinite(std) and std >= 0.0):
            raise UserInputError(f"target {name!r} cannot be scaled by mean {mean} and deviation {std}")
        self.name, self.kind = name, spec.kind
        self.extensive, self.has_references = extensive, references
        self.net = mlp(embedding_width, embedding_width, outputs_of(name, spec), layers)
        if spec.kind == "regression":
            self.register_buffer("mean", torch.tensor(mean))
            self.register_buffer("std", torch.tensor(std if std > 0.0 else 1.0))
        if references:
            self.register_buffer("references", torch.zeros(MAX_ATOMIC_NUMBER + 1))
        if extensive:
            self.register_buffer("mean_per_atom", torch.tensor(mean))

    def forward(self, embedding: Tensor) -> Tensor:
        """From [G, embedding_width] to [G] (regression, binary) or [G, classes] (class, multilabel)."""
        output: Tensor = self.net(embedding)
        return output.squeeze(1) if self.kind in {"regression", "binary"} else output

    def standardise(self, values: Tensor, batch: Batch | None = None) -> Tensor:
        """Values of the target, [G] in its unit, as the loss compares them with the output.

        Args:
            values: of all graphs of a batch.
            batch: the graphs; needed where the target is extensive or has references.
        """
        if self.kind != "regression":
            return values
        if self.extensive:
            values = values / atom_counts(self._known(batch), values)
        if self.has_references:
            values = values - of_composition(self.references, self._known(batch))
        return (values - self.mean) / self.std

    def physical(self, output: Tensor, batch: Batch | None = None) -> Tensor:
        """The output in the target's unit (regression) or as probabilities (the other kinds).

        Args:
            output: of all graphs of a batch.
            batch: the graphs; needed where the target is extensive or has references.
        """
        if self.kind != "regression":
            return torch.softmax(output, dim=1) if self.kind == "class" else torch.sigmoid(output)
        values = output * self.std + self.mean
        if self.has_references:
            values = values + of_composition(self.references, self._known(batch))
        return values * atom_counts(self._known(batch), values) if self.extensive else values

    def training_mean(self, mean: float, like: Tensor, batch: Batch) -> Tensor:
        """What predicts the training mean alone, [G] in the target's unit.

        Args:
            mean: of the values.
            like: values of a batch, for shape and type.
            batch: the graphs; of an extensive target the mean per atom counts, times their atoms.
        """
        if self.extensive:
            return self.mean_per_atom.to(like.dtype) * atom_counts(batch, like)
        return torch.full_like(like, mean)

    def _known(self, batch: Batch | None) -> Batch:
        if batch is None:
            raise ValueError(f"target {self.name!r} is scaled by the atoms of each graph, so its batch is needed")
        return batch
