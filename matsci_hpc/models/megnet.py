"""A network like MEGNet, with a state of the whole graph: Chen et al. (2019), Chem. Mater. 31, 3564, arXiv:1812.05055.

    e_ij' = e_ij + phi_e(h_i, h_j, e_ij, u)
    h_i'  = h_i + phi_h(mean_j e_ij', h_i, u)
    u'    = u + phi_u(mean_i mean_j e_ij', mean_i h_i', u)

| symbol | here |
|---|---|
| i, j | receiver, sender |
| e_ij | `bonds` [E, width] |
| h_i | `features` [A, width] |
| u | `state` [G, width] of the graph; it begins as the same parameters for all |
| phi | three layers with ssp between them, `log((exp(x) + 1) / 2)` |

The differences from the paper:
- The mean over the edges of an atom is `sum_j w_ij e_ij / (1 + sum_j w_ij)` with the weights w_ij of the envelope, or
  1: the 1 keeps it smooth as the last neighbour leaves. That over the edges of a graph is the mean of these over its
  atoms, so that a supercell has the state of its cell.
- Atoms are read out by a network on (h_i, u) and summed or averaged, not by Set2Set: what is summed is extensive.
- Blocks have no dense layers in front.
"""

import torch
from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.egnn import ELEMENTS, Encoding
from matsci_hpc.models.encoder import Gaussians, Graph, Readout, ShiftedSoftplus, per_graph, shifted_softplus
from matsci_hpc.models.linear import Linear, linear


class Block(nn.Module):
    """One round of the equations. The last one leaves the bonds to its own sums."""

    def __init__(self, model: config.MegNet) -> None:
        super().__init__()
        width, hidden = model.width, model.hidden_width
        self.width = width
        self.bond_first = Linear(4 * width, hidden)
        self.bond_rest = _rest(hidden, width)
        self.atom_net = nn.Sequential(Linear(3 * width, hidden), ShiftedSoftplus(), *_rest(hidden, width))
        self.state_net = nn.Sequential(Linear(3 * width, hidden), ShiftedSoftplus(), *_rest(hidden, width))

    def forward(
        self, bonds: Tensor, features: Tensor, state: Tensor, graph: Graph, neighbors: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bonds, features and state after this block; `neighbors` [A, 1] are the weights an atom receives."""
        at_atoms = state.index_select(0, batch.atom_graph)
        bonds = bonds + self._bond_update(bonds, features, at_atoms, graph)
        received = graph.layout.to_atoms(graph.weighted(bonds)) / (1.0 + neighbors).to(bonds.dtype)
        features = features + self.atom_net(torch.cat((received, features, at_atoms), dim=1))
        means = per_graph(torch.cat((received, features), dim=1), batch, mean=True)
        return bonds, features, state + self.state_net(torch.cat((means, state), dim=1))

    def _bond_update(self, bonds: Tensor, features: Tensor, at_atoms: Tensor, graph: Graph) -> Tensor:
        """phi_e. Its first layer is a product over atoms for what atoms bring, and one over edges for the bonds."""
        weight, n = self.bond_first.weight, self.width
        of_receiver = torch.cat((features, at_atoms), dim=1)
        first = graph.layout.to_edges(
            linear(of_receiver, weight[:, : 2 * n], self.bond_first.bias),
            linear(features, weight[:, 2 * n : 3 * n]),
        )
        update: Tensor = self.bond_rest(shifted_softplus(first + linear(bonds, weight[:, 3 * n :])))
        return update


def _rest(hidden: int, width: int) -> nn.Sequential:
    """The second and third layer of phi."""
    return nn.Sequential(Linear(hidden, hidden), ShiftedSoftplus(), Linear(hidden, width))


class MegNet(nn.Module):
    """Element table, expansion of the distances, blocks, readout.

    Args:
        model: sizes and options.
        cutoff: radius of the neighbour list, angstrom.
    """

    def __init__(self, model: config.MegNet, cutoff: float) -> None:
        super().__init__()
        self.cutoff, self.envelope = cutoff, model.envelope
        self.backend = model.backend
        self.gaussians = Gaussians(model.gaussians, cutoff)
        self.elements = nn.Embedding(ELEMENTS, model.width)
        self.bond_table = Linear(model.gaussians, model.width)
        self.state = nn.Parameter(torch.zeros(1, model.width))
        self.layers = nn.ModuleList(Block(model) for _ in range(model.layers))
        self.readout = Readout(2 * model.width, model.embedding_width, model.readout)

    def forward(self, batch: Batch) -> Encoding:
        """Encode a batch of any size, also of no graphs."""
        graph = Graph.of(batch, self.cutoff, envelope=self.envelope, backend=self.backend)
        neighbors = graph.neighbors(batch)
        features, bonds = self.elements(batch.atomic_number), self.bond_table(self.gaussians(graph.distance))
        state = self.state.expand(batch.graphs, -1)
        for layer in self.layers:
            bonds, features, state = layer(bonds, features, state, graph, neighbors, batch)
        joined = torch.cat((features, state.index_select(0, batch.atom_graph).to(features.dtype)), dim=1)
        return Encoding(features, batch.position, self.readout(joined, batch))
