"""Who carries out the message passing of an encoder: the operators of this package, or those of DGL."""

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.dgl_layout import DglLayout, import_dgl
from matsci_hpc.models.segment import EdgeLayout

Layout = EdgeLayout | DglLayout
"""Both have `to_atoms`, `to_edges` and `from_senders`, with the same numbers."""


def layout_of(batch: Batch, backend: str) -> Layout:
    """The layout of a batch.

    Args:
        batch: any number of graphs.
        backend: `own` or `dgl`.

    Raises:
        MachineError: DGL cannot be used.
    """
    # DGL has no graph without edges to work on; there is nothing to do on one.
    if backend == "dgl" and batch.edges:
        return DglLayout(batch)
    return EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer)


def require_backend(backend: str) -> None:
    """See to it that a backend is there before anything begins.

    Raises:
        MachineError: DGL cannot be used.
    """
    if backend == "dgl":
        import_dgl()
