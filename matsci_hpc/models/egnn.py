"""The E(n)-equivariant graph network: Satorras, Hoogeboom, Welling (2021), arXiv:2102.09844, eqs. 3-6.

    m_ij = phi_e(h_i, h_j, |r_ij|^2)                                  (3)
    x_i' = x_i + C sum_j r_ij phi_x(m_ij)                             (4)
    m_i  = sum_j m_ij                                                 (5)
    h_i' = h_i + phi_h(h_i, m_i)                                      (6)

| symbol | here |
|---|---|
| i, j | receiver, sender |
| h_i | `features` [A, width] |
| x_i | `positions` [A, 3], angstrom |
| r_ij | `vector`, `x_j + s_ij - x_i` [E, 3], s_ij the image of j (the paper: `x_i - x_j`; phi_x learns the sign) |
| phi_e, phi_x, phi_h | `edge_first` and `edge_second`, `position_net`, `atom_net` |

Layers have no normalisation: with 60 neighbours, features of a fresh model less than double in a layer, and
layer norms did not speed up training. The differences from the paper, all of which keep the symmetry:
- An edge moves its receiver by at most 1 angstrom: `r / (1 + |r|)` for r_ij and tanh on phi_x.
- C is `1 / (1 + n_i)` with n_i neighbours, so that crystals and clouds move alike; the 1 keeps C smooth as
  the last neighbour leaves.
- Edges carry a weight w_ij (1, or the envelope at the cutoff) on the message and on the move; n_i is its sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from matsci_hpc.config import train as config
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.linear import Linear, linear, mlp
from matsci_hpc.models.radial import RadialFeatures, cosine_envelope
from matsci_hpc.models.segment import EdgeLayout, segment_sum

ELEMENTS = 119
"""Rows of the element table: atomic numbers 1 to 118, and 0 for a site of no element."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder made of a batch.

    Attributes:
        features: float [A, width], invariant.
        positions: float [A, 3], angstrom, equivariant; those of the batch where no layer moves atoms.
        embedding: float [G, embedding_width], invariant.
    """

    features: Tensor
    positions: Tensor
    embedding: Tensor


@dataclass(frozen=True, slots=True)
class Edges:
    """What all layers share. `weight` is float [E, 1]; None where every edge weighs 1."""

    layout: EdgeLayout
    weight: Tensor | None
    neighbors: Tensor
    """Float [A, 1], sum of the weights of the edges received."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Edges at the current positions: `vector` [E, 3] in angstrom, `distance` and `radial` [E, .]."""

    vector: Tensor
    distance: Tensor
    radial: Tensor


def image_shift(batch: Batch) -> Tensor | None:
    """Cartesian vectors [E, 3] of the senders' lattice images, angstrom; None where no edge leaves its cell."""
    if batch.edge_image is None:
        return None
    graph = batch.atom_graph.index_select(0, batch.receiver)
    image = batch.edge_image.to(batch.cell.dtype)
    shift = image[:, 0:1] * batch.cell[:, 0].index_select(0, graph)
    shift = shift + image[:, 1:2] * batch.cell[:, 1].index_select(0, graph)
    return shift + image[:, 2:3] * batch.cell[:, 2].index_select(0, graph)


def edge_vectors(positions: Tensor, layout: EdgeLayout, shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [E, 3] from receiver to sender, their squared lengths and lengths [E, 1], in angstrom."""
    vector = layout.to_edges(-positions, positions)
    if shift is not None:
        vector = vector + shift
    squared = vector.square().sum(dim=1, keepdim=True)
    # The square root has no slope at zero, where two atoms, or an atom and its own image, fall together.
    distance = torch.sqrt(squared + torch.finfo(squared.dtype).eps ** 2)
    return vector, squared, distance


class Layer(nn.Module):
    """One round of eqs. 3-6."""

    def __init__(self, model: config.Model, radial_width: int, *, moves: bool) -> None:
        super().__init__()
        width, message = model.width, model.message_width
        self.width = width
        self.edge_first = Linear(2 * width + radial_width, message)
        self.edge_second = Linear(message, message)
        self.atom_net = mlp(width + message, width, width)
        self.position_net: nn.Sequential | None = None
        if moves:
            last = Linear(model.position_width, 1)
            # Training starts from atoms that hardly move, as in the authors' code.
            nn.init.xavier_uniform_(last.weight, gain=1e-3)
            nn.init.zeros_(last.bias)
            self.position_net = nn.Sequential(Linear(message, model.position_width), nn.SiLU(), last)

    def messages(self, features: Tensor, edges: Edges, radial: Tensor) -> Tensor:
        """Eq. 3, [E, message_width].

        The first layer acts on (h_i, h_j, radial) as `(h W_i)[i] + (h W_j)[j] + radial W_r + b`: the same
        numbers as on the joined rows, with the large product over atoms instead of edges.
        """
        weight, n = self.edge_first.weight, self.width
        first = edges.layout.to_edges(
            linear(features, weight[:, :n], self.edge_first.bias),
            linear(features, weight[:, n : 2 * n]),
        )
        # In place: this is the only [E, message_width] tensor that nothing else needs.
        first.addmm_(radial.to(first.dtype), weight[:, 2 * n :].t().to(first.dtype))
        message = functional.silu(self.edge_second(functional.silu(first)))
        return message if edges.weight is None else message * edges.weight.to(message.dtype)

    def moved(self, positions: Tensor, message: Tensor, edges: Edges, geometry: Geometry) -> Tensor:
        """Eq. 4, [A, 3]."""
        if self.position_net is None:
            return positions
        # Coordinates keep their precision whatever that of the messages is.
        step = torch.tanh(self.position_net(message).to(positions.dtype)) / (1.0 + geometry.distance)
        if edges.weight is not None:
            step = step * edges.weight
        return positions + edges.layout.to_atoms(geometry.vector * step) / (1.0 + edges.neighbors)

    def forward(self, features: Tensor, positions: Tensor, edges: Edges, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Features [A, width] and positions [A, 3] after this layer."""
        message = self.messages(features, edges, geometry.radial)
        received = edges.layout.to_atoms(message)
        update = self.atom_net(torch.cat((features.to(received.dtype), received), dim=1))
        return features + update, self.moved(positions, message, edges, geometry)


class EGNN(nn.Module):
    """Element table, layers, and the readout of atoms into graphs.

    Args:
        model: sizes and options.
        cutoff: radius of the neighbour list, angstrom.
        positions_read: whether someone reads the final positions. If not, the last layer does not move atoms,
            because no gradient would reach its parameters.
    """

    def __init__(self, model: config.Model, cutoff: float, *, positions_read: bool = False) -> None:
        super().__init__()
        self.cutoff, self.envelope, self.readout = cutoff, model.envelope, model.readout
        self.radial = RadialFeatures(model.radial_basis.count, cutoff)
        self.elements = nn.Embedding(ELEMENTS, model.width)
        last = model.layers - 1
        self.layers = nn.ModuleList(
            Layer(model, self.radial.width, moves=model.update_positions and (i < last or positions_read))
            for i in range(model.layers)
        )
        self.atom_readout = mlp(model.width, model.embedding_width, model.embedding_width)

    def geometry(self, positions: Tensor, layout: EdgeLayout, shift: Tensor | None) -> Geometry:
        """Edges as `positions` make them."""
        vector, squared, distance = edge_vectors(positions, layout, shift)
        return Geometry(vector, distance, self.radial(squared, distance))

    def edges(self, batch: Batch, layout: EdgeLayout, geometry: Geometry) -> Edges:
        """Edges and their weights.

        The envelope follows the distances of the batch, not those of moved atoms: only the former decide
        which edges exist, and it is their coming and going that it has to hide.
        """
        weight = cosine_envelope(geometry.distance, self.cutoff) if self.envelope else None
        if weight is None:
            neighbors = batch.edge_pointer.diff().to(batch.position.dtype).unsqueeze(1)
        else:
            neighbors = layout.to_atoms(weight)
        return Edges(layout, weight, neighbors)

    def pool(self, per_atom: Tensor, batch: Batch) -> Tensor:
        """Sum or mean of [A, F] over the atoms of each graph: [G, F]."""
        # In the precision of coordinates: a sum over a large graph would lose the small differences between
        # graphs.
        total = segment_sum(per_atom.to(batch.position.dtype), batch.atom_graph, batch.atom_pointer)
        if self.readout == "sum":
            return total
        atoms = batch.atom_pointer.diff().clamp(min=1).unsqueeze(1)
        return total / atoms.to(total.dtype)

    def forward(self, batch: Batch) -> Encoding:
        """Encode a batch of any size, also of no graphs."""
        layout = EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer)
        features, positions = self.elements(batch.atomic_number), batch.position
        shift = image_shift(batch)
        geometry = self.geometry(positions, layout, shift)
        edges = self.edges(batch, layout, geometry)
        for layer in self.layers:
            before = positions
            features, positions = layer(features, positions, edges, geometry)
            if positions is not before and layer is not self.layers[-1]:
                geometry = self.geometry(positions, layout, shift)
        per_atom = self.atom_readout(features)
        return Encoding(features, positions, self.pool(per_atom, batch))
