"""SchNet: Schuett et al. (2018), J. Chem. Phys. 148, 241722, arXiv:1706.08566.

    W_ij = ssp(e(|r_ij|) W_1 + b_1) W_2 + b_2, times the envelope
    x_i  = sum_j (h_j W_in) * W_ij
    h_i' = h_i + ssp(x_i W_3 + b_3) W_4 + b_4

| symbol | here |
|---|---|
| i, j | receiver, sender |
| h_i | `features` [A, width] |
| r_ij | vector from i to the image of j, angstrom |
| e | `gaussians`, [E, gaussians] |
| W_ij | filter [E, filter_width] |
| W_in | `to_filter`, without bias |
| W_3, W_4 | `update` |
| ssp | `log((exp(x) + 1) / 2)` |

It is invariant; positions stay where they are. The paper expands distances up to 30 angstrom and has no envelope; with
a neighbour list the filter has to fade out where the list ends, as in later releases of the authors' code.
"""

from torch import Tensor, nn

from matsci_hpc.config import model as config
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.egnn import ELEMENTS, Encoding
from matsci_hpc.models.encoder import Gaussians, Graph, Readout, ShiftedSoftplus
from matsci_hpc.models.layout import Layout
from matsci_hpc.models.linear import Linear


class Interaction(nn.Module):
    """One round of the equations."""

    def __init__(self, model: config.SchNet) -> None:
        super().__init__()
        width, inner = model.width, model.filter_width
        self.filter = nn.Sequential(Linear(model.gaussians, inner), ShiftedSoftplus(), Linear(inner, inner))
        self.to_filter = Linear(width, inner, bias=False)
        self.update = nn.Sequential(Linear(inner, width), ShiftedSoftplus(), Linear(width, width))

    def forward(self, features: Tensor, graph: Graph, expanded: Tensor) -> Tensor:
        """Features [A, width] after this block, from those before and the expanded distances [E, gaussians]."""
        filters = graph.weighted(self.filter(expanded))
        received = convolve(graph.layout, self.to_filter(features), filters)
        update: Tensor = self.update(received)
        return features + update


def convolve(layout: Layout, features: Tensor, filters: Tensor) -> Tensor:
    """`sum_j features_j * filters_ij` over the edges that each atom receives: [A, F] of [A, F] and [E, F]."""
    return layout.to_atoms(layout.from_senders(features) * filters)


class SchNet(nn.Module):
    """Element table, interactions, readout.

    Args:
        model: sizes and options.
        cutoff: radius of the neighbour list, angstrom.
    """

    def __init__(self, model: config.SchNet, cutoff: float) -> None:
        super().__init__()
        self.cutoff, self.envelope = cutoff, model.envelope
        self.backend = model.backend
        self.gaussians = Gaussians(model.gaussians, cutoff)
        self.elements = nn.Embedding(ELEMENTS, model.width)
        self.layers = nn.ModuleList(Interaction(model) for _ in range(model.layers))
        self.readout = Readout(model.width, model.embedding_width, model.readout)

    def forward(self, batch: Batch) -> Encoding:
        """Encode a batch of any size, also of no graphs."""
        graph = Graph.of(batch, self.cutoff, envelope=self.envelope, backend=self.backend)
        features, expanded = self.elements(batch.atomic_number), self.gaussians(graph.distance)
        for layer in self.layers:
            features = layer(features, graph, expanded)
        return Encoding(features, batch.position, self.readout(features, batch))
