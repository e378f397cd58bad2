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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.activation import Silu, silu
from matsci_hpc.models.layout import Layout, layout_of
from matsci_hpc.models.linear import Linear, linear, mlp, silu_linear
from matsci_hpc.models.radial import RadialFeatures, cosine_envelope
from matsci_hpc.models.segment import EdgeLayout, receiver_ranges, segment_sum

ELEMENTS = 119
"""Rows of the element table: atomic numbers 1 to 118, and 0 for a site of no element."""
EDGE_TENSOR_BYTES = {"cpu": 2**21}
"""Layers compute their edges in parts, so that a tensor over the edges of a part passes no such size: on a CPU that of
the caches, since a pass over main memory takes longer than what is computed on the way."""
OTHER_DEVICES_BYTES = 2**30
"""The same for devices not named above, where parts only keep the peak of the memory down."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder made of a batch.

    Attributes:
        features: float [A, width], invariant.
        positions: float [A, 3], angstrom, equivariant; those of the batch where no layer moves atoms.
        embedding: float [G, embedding_width], invariant.
        vectors: float [A, 3, width], equivariant; None where the encoder has none.
    """

    features: Tensor
    positions: Tensor
    embedding: Tensor
    vectors: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Edges:
    """What all layers share. `weight` is float [E, 1]; None where every edge weighs 1."""

    parts: tuple[Layout, ...]
    """The edges that layers compute at once, in order."""
    weight: Tensor | None
    neighbors: Tensor
    """Float [A, 1], sum of the weights of the edges received."""
    eager: bool
    """Whether derivatives of derivatives may be wanted, which compiled code does not have."""

    def split(self, per_edge: Tensor) -> tuple[Tensor, ...]:
        """A tensor over all edges by parts."""
        if len(self.parts) == 1:
            return (per_edge,)
        return tuple(torch.split(per_edge, [part.edges for part in self.parts]))


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


def edge_vectors(positions: Tensor, layout: Layout, shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
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

    def __init__(self, model: config.Egnn, radial_width: int, *, moves: bool) -> None:
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
            self.position_net = nn.Sequential(Linear(message, model.position_width), Silu(), last)
        self.compiled: Callable[..., tuple[Tensor, Tensor | None]] | None = None
        """`block` as the compiler made it, if it did."""

    def block(
        self, ends: Tensor, part: Layout, vector: Tensor, distance: Tensor, radial: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Sums of messages [receivers, message_width] and, if atoms move, of moves [receivers, 3] over a part's edges.

        Args:
            ends: what each atom brings to `edge_first`, [2A, message_width].
            part: the edges.
            vector: of these edges, as in `Geometry`.
            distance: likewise.
            radial: likewise.
            weight: of these edges, [E, 1].
        """
        message = self.messages(part.from_table(ends), radial, weight)
        if self.position_net is None:
            return part.to_atoms(message), None
        hidden, last = self.position_net[0], cast("Linear", self.position_net[2])
        # Coordinates keep their precision whatever that of the messages is.
        step = silu_linear(hidden(message), last.weight, last.bias).to(vector.dtype)
        step = torch.tanh(step) / (1.0 + distance)
        if weight is not None:
            step = step * weight
        return part.to_atoms(message), part.to_atoms(vector * step)

    def messages(self, first: Tensor, radial: Tensor, weight: Tensor | None) -> Tensor:
        """Eq. 3 from what both ends bring to `edge_first`, [E, message_width]."""
        of_radial = self.edge_first.weight[:, 2 * self.width :].to(first.dtype)
        radial = radial.to(first.dtype)
        if torch.compiler.is_compiling():
            # The compiler joins this with the activation, in one pass.
            first = first + (radial * of_radial.t() if radial.shape[1] == 1 else radial @ of_radial.t())
        else:
            # In place: this is the only [E, message_width] tensor that nothing else needs.
            first.addmm_(radial, of_radial.t())
        message = silu(silu_linear(first, self.edge_second.weight, self.edge_second.bias))
        return message if weight is None else message * weight.to(message.dtype)

    def forward(self, features: Tensor, positions: Tensor, edges: Edges, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Features [A, width] and positions [A, 3] after this layer.

        `edge_first` acts on (h_i, h_j, radial) as `(h W_i)[i] + (h W_j)[j] + radial W_r + b`: the same numbers as on
        the joined rows, with the large product over atoms instead of edges.
        """
        weight, n = self.edge_first.weight, self.width
        ends = torch.cat(
            (linear(features, weight[:, :n], self.edge_first.bias), linear(features, weight[:, n : 2 * n]))
        )
        block = self.block if self.compiled is None or edges.eager else self.compiled
        weights = edges.split(edges.weight) if edges.weight is not None else (None,) * len(edges.parts)
        split = map(edges.split, (geometry.vector, geometry.distance, geometry.radial))
        made = [block(ends, *each) for each in zip(edges.parts, *split, weights, strict=True)]
        received = torch.cat([message for message, _ in made])
        update = self.atom_net(torch.cat((features.to(received.dtype), received), dim=1))
        moves = [move for _, move in made if move is not None]
        if moves:
            positions = positions + torch.cat(moves) / (1.0 + edges.neighbors)
        return features + update, positions


class EGNN(nn.Module):
    """Element table, layers, and the readout of atoms into graphs.

    Args:
        model: sizes and options.
        cutoff: radius of the neighbour list, angstrom.
        positions_read: whether someone reads the final positions. If not, the last layer does not move atoms,
            because no gradient would reach its parameters.
    """

    def __init__(self, model: config.Egnn, cutoff: float, *, positions_read: bool = False) -> None:
        super().__init__()
        self.cutoff, self.envelope, self.readout = cutoff, model.envelope, model.readout
        self.message_width = model.message_width
        self.backend = model.backend
        self.radial = RadialFeatures(model.radial_basis.count, cutoff)
        self.elements = nn.Embedding(ELEMENTS, model.width)
        last = model.layers - 1
        self.layers = nn.ModuleList(
            Layer(model, self.radial.width, moves=model.update_positions and (i < last or positions_read))
            for i in range(model.layers)
        )
        self.atom_readout = mlp(model.width, model.embedding_width, model.embedding_width)

    def geometry(self, positions: Tensor, layout: Layout, shift: Tensor | None) -> Geometry:
        """Edges as `positions` make them."""
        vector, squared, distance = edge_vectors(positions, layout, shift)
        return Geometry(vector, distance, self.radial(squared, distance))

    def edges(self, batch: Batch, layout: Layout, geometry: Geometry) -> Edges:
        """Edges and their weights.

        The envelope follows the distances of the batch, not those of moved atoms: only the former decide
        which edges exist, and it is their coming and going that it has to hide.
        """
        weight = cosine_envelope(geometry.distance, self.cutoff) if self.envelope else None
        if weight is None:
            neighbors = batch.edge_pointer.diff().to(batch.position.dtype).unsqueeze(1)
        else:
            neighbors = layout.to_atoms(weight)
        return Edges(self.parts(batch, layout), weight, neighbors, eager=batch.position.requires_grad)

    def parts(self, batch: Batch, layout: Layout) -> tuple[Layout, ...]:
        """The edges in parts of which no tensor is too large; `layout` is that of all."""
        most_bytes = EDGE_TENSOR_BYTES.get(batch.position.device.type, OTHER_DEVICES_BYTES)
        most_edges = max(1, most_bytes // (self.message_width * batch.position.element_size()))
        if batch.edges <= most_edges or not isinstance(layout, EdgeLayout):
            return (layout,)
        ranges = receiver_ranges(batch.edge_pointer.tolist(), most_edges)
        return tuple(EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer, each) for each in ranges)

    def compile_parts(self) -> None:
        """Compile what layers do with edges, for batches of any size; parameters keep their names."""
        block = torch.compile(Layer.block, dynamic=True)
        for layer in self.layers:
            cast("Layer", layer).compiled = partial(block, cast("Layer", layer))

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
        layout = layout_of(batch, self.backend)
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
