"""A batch as the graph of another library, so that models written for it can be trained or compared.

What both sides lay out alike is shared, not copied: positions, cells, targets, and with DGL the ends of the edges.
PyTorch Geometric wants indices of 64 bits, so they are copies there.

An edge points from sender to receiver in both, in the order of the batch. `edge_shift` [E, 3], angstrom, is the vector
of the sender's lattice image, so the vector along an edge is `pos[sender] + edge_shift - pos[receiver]`; `edge_vec` and
`edge_weight` are that vector and its length. Both follow `batch.position`, also in derivatives.
"""

from typing import Any

import torch
from torch import Tensor

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.dgl_layout import import_dgl
from matsci_hpc.models.egnn import edge_vectors, image_shift
from matsci_hpc.models.segment import EdgeLayout


def to_pyg(batch: Batch) -> Any:
    """A `torch_geometric.data.Batch`.

    It holds z [A], pos [A, 3], edge_index [2, E] (sender, receiver), edge_vec, edge_weight, edge_shift, cell [G, 3, 3],
    batch [A], ptr [G + 1], sample [G], and `y` and `present`, dictionaries by target name.

    Raises:
        MachineError: PyTorch Geometric is not installed.
    """
    try:
        from torch_geometric.data import Batch as PygBatch
    except ImportError as error:
        raise MachineError(
            f"PyTorch Geometric cannot be used: {error}; install it by pip install 'matsci-hpc[pyg]'"
        ) from None
    shift, vector, distance = _edges(batch)
    graph = PygBatch(
        batch=batch.atom_graph.long(),
        ptr=batch.atom_pointer.long(),
        z=batch.atomic_number.long(),
        pos=batch.position,
        edge_index=torch.stack((batch.sender, batch.receiver)).long(),
        edge_vec=vector,
        edge_weight=distance,
        edge_shift=shift,
        cell=batch.cell,
        y=batch.targets,
        present=batch.present,
        sample=batch.sample,
    )
    graph._num_graphs = batch.graphs  # noqa: SLF001 - set by its own collate only
    return graph


def to_dgl(batch: Batch) -> Any:
    """A `dgl.DGLGraph` that knows its graphs, so that `dgl.sum_nodes` and the like work.

    It holds ndata z [A] and pos [A, 3], edata edge_vec, edge_weight and edge_shift, and as attributes cell [G, 3, 3],
    sample [G], and targets and present by target name.

    Raises:
        MachineError: DGL cannot be used.
    """
    dgl = import_dgl()
    graph = dgl.graph((batch.sender, batch.receiver), num_nodes=batch.atoms)
    # DGL keeps these at the width of the indices of the graph.
    graph.set_batch_num_nodes(batch.atom_pointer.diff())
    graph.set_batch_num_edges(batch.edge_pointer.index_select(0, batch.atom_pointer).diff())
    graph.ndata["z"], graph.ndata["pos"] = batch.atomic_number, batch.position
    shift, vector, distance = _edges(batch)
    graph.edata["edge_vec"], graph.edata["edge_weight"], graph.edata["edge_shift"] = vector, distance, shift
    graph.cell, graph.sample, graph.targets, graph.present = batch.cell, batch.sample, batch.targets, batch.present
    return graph


def _edges(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Image shifts [E, 3], vectors [E, 3] and distances [E], angstrom."""
    layout = EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer)
    shift = image_shift(batch)
    vector, _, distance = edge_vectors(batch.position, layout, shift)
    return torch.zeros_like(vector) if shift is None else shift, vector, distance.squeeze(1)
