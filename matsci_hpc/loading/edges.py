"""Edges found when a sample is read, for data sets whose shards hold none: the very edges that they would hold."""

import numpy as np

from matsci_hpc.neighbors import Edges, radius_graph
from matsci_hpc.shards.layout import Array
from matsci_hpc.structure import Structure


def sample_edges(arrays: dict[str, Array], row: int, cutoff: float) -> Edges:
    """Radius graph of one row of a shard, by the rule and in the precision of preparation.

    Args:
        arrays: of the shard.
        row: of the sample.
        cutoff: angstrom.

    Raises:
        ValueError: the structure cannot be used; the message is the reason.
    """
    first, last = arrays["offsets/atoms"][row], arrays["offsets/atoms"][row + 1]
    cell = arrays.get("structures/cell")
    structure = Structure(
        id="",
        atomic_number=np.asarray(arrays["atoms/atomic_number"][first:last], dtype=np.uint8),
        position=np.asarray(arrays["atoms/position"][first:last], dtype=np.float32),
        cell=np.zeros((3, 3), dtype=np.float32) if cell is None else np.asarray(cell[row], dtype=np.float32),
        pbc=np.asarray(arrays["structures/pbc"][row], dtype=bool),
    )
    fault = structure.fault()
    if fault is not None:  # the search must not meet numbers that preparation would have refused
        raise ValueError(fault)
    return radius_graph(structure, cutoff)
