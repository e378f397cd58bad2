"""PaiNN: Schuett, Unke, Gastegger (2021), arXiv:2102.03150, eqs. 7-10.

    x_j = phi(s_j);  W_ij = (e(|r_ij|) W + b), times the envelope                      (phi, W have 3 F outputs)
    s_i' = s_i + sum_j (x_j * W_ij)_s                                                  (7)
    v_i' = v_i + sum_j v_j (x_j * W_ij)_vv + sum_j (x_j * W_ij)_vs r_ij / |r_ij|       (8)

    a    = mlp(s_i, |V v_i|)
    s_i' = s_i + a_ss + a_sv <U v_i, V v_i>                                            (9)
    v_i' = v_i + a_vv U v_i                                                            (10)

| symbol | here |
|---|---|
| i, j | receiver, sender |
| s_i | `features` [A, F], invariant |
| v_i | `vectors` [A, 3 F], equivariant: the x parts of F vectors, then their y parts, then their z parts |
| r_ij | vector from i to the image of j, angstrom |
| e_n | `sin(n pi d / cutoff) / d`, 1 / angstrom |
| phi, W | `sender_net`, `filter` |
| U, V, mlp | `mix` (both in one product), `update` |

`|V v|` is the root of `|V v|^2 + 1e-8`, for a slope at zero, where vectors start. Where nobody reads the vectors of the
last layer, the parameters that no invariant feels are left out (`vectors_read`).
"""

import math

import torch
from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.egnn import ELEMENTS, Encoding
from matsci_hpc.models.encoder import Graph, Readout
from matsci_hpc.models.linear import Linear, mlp

SMALL = 1e-8
"""Keeps the length of a vector smooth at zero."""


class SineWaves(nn.Module):
    """`sin(n pi d / cutoff) / d` for n = 1 to count; source: Klicpera et al. (2020), arXiv:2003.03123, eq. 7."""

    numbers: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        # Whole numbers, which are exact in any precision that the model is cast to.
        self.register_buffer("numbers", torch.arange(1.0, count + 1.0), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """From angstrom, [E, 1], to [E, count]."""
        # sinc instead of sin(x) / d: it has a value where two atoms fall together.
        return self.numbers * (math.pi / self.cutoff) * torch.sinc(self.numbers * (distance / self.cutoff))


class Message(nn.Module):
    """Eqs. 7 and 8."""

    def __init__(self, model: config.PaiNN) -> None:
        super().__init__()
        self.sender_net = mlp(model.width, model.width, 3 * model.width)
        self.filter = Linear(model.radial, 3 * model.width)

    def forward(self, features: Tensor, vectors: Tensor, graph: Graph, expanded: Tensor) -> tuple[Tensor, Tensor]:
        """Features [A, F] and vectors [A, 3 F] after this block."""
        filters = graph.weighted(self.filter(expanded))
        scalar, along, turn = (graph.layout.from_senders(self.sender_net(features)) * filters).chunk(3, dim=1)
        direction = (graph.vector / graph.distance).to(turn.dtype)
        # In the precision of coordinates, which the first block's vectors, zeros, have.
        sent = graph.layout.from_senders(vectors) * along.repeat(1, 3)
        sent = sent + torch.cat([direction[:, k : k + 1] * turn for k in range(3)], dim=1)
        return features + graph.layout.to_atoms(scalar), vectors + graph.layout.to_atoms(sent)


class Update(nn.Module):
    """Eqs. 9 and 10."""

    def __init__(self, model: config.PaiNN, *, vectors_read: bool) -> None:
        super().__init__()
        width = model.width
        self.width, self.vectors_read = width, vectors_read
        self.mix = Linear(width, 2 * width, bias=False)
        self.update = mlp(2 * width, width, (3 if vectors_read else 2) * width)

    def forward(self, features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Features [A, F] and vectors [A, 3 F] after this block."""
        atoms, width = len(features), self.width
        mixed = self.mix(vectors.reshape(3 * atoms, width)).reshape(atoms, 3, 2, width)
        first, second = mixed[:, :, 0], mixed[:, :, 1]
        length = torch.sqrt(second.square().sum(dim=1) + SMALL)
        parts = self.update(torch.cat((features, length.to(features.dtype)), dim=1)).split(width, dim=1)
        features = features + parts[0] + parts[1] * (first * second).sum(dim=1)
        if not self.vectors_read:
            return features, vectors
        return features, vectors + (parts[2].unsqueeze(1) * first).reshape(atoms, 3 * width)


class PaiNN(nn.Module):
    """Element table, message and update blocks, readout.

    Args:
        model: sizes and options.
        cutoff: radius of the neighbour list, angstrom.
        vectors_read: whether someone reads the final vectors. If not, the last layer does not update them, because no
            gradient would reach its parameters.
    """

    def __init__(self, model: config.PaiNN, cutoff: float, *, vectors_read: bool = False) -> None:
        super().__init__()
        self.cutoff, self.envelope, self.width = cutoff, model.envelope, model.width
        self.backend = model.backend
        self.waves = SineWaves(model.radial, cutoff)
        self.elements = nn.Embedding(ELEMENTS, model.width)
        self.messages = nn.ModuleList(Message(model) for _ in range(model.layers))
        last = model.layers - 1
        self.updates = nn.ModuleList(Update(model, vectors_read=vectors_read or i < last) for i in range(model.layers))
        self.readout = Readout(model.width, model.embedding_width, model.readout)

    def forward(self, batch: Batch) -> Encoding:
        """Encode a batch of any size, also of no graphs."""
        features, vectors = self.atoms(batch)
        return Encoding(features, batch.position, self.readout(features, batch), vectors)

    def atoms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Invariant features [A, F] and vectors [A, 3, F] of the atoms."""
        graph = Graph.of(batch, self.cutoff, envelope=self.envelope, backend=self.backend)
        features, expanded = self.elements(batch.atomic_number), self.waves(graph.distance)
        vectors = batch.position.new_zeros((batch.atoms, 3 * self.width))
        for message, update in zip(self.messages, self.updates, strict=True):
            features, vectors = message(features, vectors, graph, expanded)
            features, vectors = update(features, vectors)
        return features, vectors.reshape(batch.atoms, 3, self.width)
