"""What encoders share: how atoms are told apart, where edges point, how atoms make a graph."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.egnn import edge_vectors, image_shift
from matsci_hpc.models.layout import Layout, layout_of
from matsci_hpc.models.linear import mlp
from matsci_hpc.models.radial import cosine_envelope
from matsci_hpc.models.segment import segment_sum

LN2 = 0.6931471805599453


@dataclass(frozen=True, slots=True)
class Graph:
    """Edges of a batch: its layout, `vector` [E, 3] and `distance` [E, 1] in angstrom, weight [E, 1] or None."""

    layout: Layout
    vector: Tensor
    distance: Tensor
    envelope: Tensor | None

    @classmethod
    def of(cls, batch: Batch, cutoff: float, *, envelope: bool, backend: str) -> "Graph":
        """The graph of a batch; `envelope` gives each edge a weight that vanishes at the cutoff (angstrom)."""
        layout = layout_of(batch, backend)
        vector, _, distance = edge_vectors(batch.position, layout, image_shift(batch))
        return cls(layout, vector, distance, cosine_envelope(distance, cutoff) if envelope else None)

    def weighted(self, values: Tensor) -> Tensor:
        """`values` [E, F], faded out at the cutoff."""
        return values if self.envelope is None else values * self.envelope.to(values.dtype)

    def neighbors(self, batch: Batch) -> Tensor:
        """Weights of the edges that each atom receives, added up: [A, 1]."""
        if self.envelope is None:
            return batch.edge_pointer.diff().to(batch.position.dtype).unsqueeze(1)
        return self.layout.to_atoms(self.envelope)


def shifted_softplus(x: Tensor) -> Tensor:
    """`log((exp(x) + 1) / 2)`, smooth at every order and zero at zero."""
    return functional.softplus(x) - LN2


class ShiftedSoftplus(nn.Module):
    """`shifted_softplus` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return shifted_softplus(x)


class Gaussians(nn.Module):
    """`exp(-((d - c_k) / spacing)^2 / 2)`, c_k at equal spacing from 0 to the cutoff.

    Args:
        count: number of Gaussians.
        cutoff: radius of the neighbour list, angstrom.
    """

    numbers: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.spacing = cutoff / max(count - 1, 1)
        # Whole numbers, which are exact in any precision that the model is cast to.
        self.register_buffer("numbers", torch.arange(float(count)), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """From angstrom, [E, 1], to [E, count]."""
        return torch.exp(-0.5 * (distance / self.spacing - self.numbers).square())


class Readout(nn.Module):
    """A network on every atom, then the sum or mean over the atoms of each graph.

    Args:
        inputs: features of an atom.
        width: of the embedding.
        how: `sum` or `mean`.
    """

    def __init__(self, inputs: int, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.net = mlp(inputs, width, width)

    def forward(self, features: Tensor, batch: Batch) -> Tensor:
        """From [A, inputs] to [G, width], in the precision of coordinates, as differences of large sums matter."""
        per_atom = self.net(features).to(batch.position.dtype)
        return per_graph(per_atom, batch, mean=self.how == "mean")


def per_graph(per_atom: Tensor, batch: Batch, *, mean: bool) -> Tensor:
    """Sum or mean of [A, F] over the atoms of each graph: [G, F]."""
    total = segment_sum(per_atom, batch.atom_graph, batch.atom_pointer)
    if not mean:
        return total
    return total / batch.atom_pointer.diff().clamp(min=1).unsqueeze(1).to(total.dtype)
