"""Structures with their edges, and batches of them made in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.plan import COST
from matsci_hpc.neighbors import Edges, NeighborError, radius_graph
from matsci_hpc.ragged import offsets
from matsci_hpc.structure import Structure

BATCH_COST = 150_000.0
"""Predicted cost of a batch, in edges: as in evaluations, large enough to be efficient, small enough for any memory."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A usable structure and its edges."""

    structure: Structure
    edges: Edges


def graph_of(structure: Structure, cutoff: float) -> Graph:
    """A structure with its edges by the rule of preparation; `cutoff` in angstrom.

    Raises:
        UserInputError: the structure cannot be used.
    """
    fault = structure.fault()
    if fault is not None:
        raise UserInputError(f"structure {structure.id}: {fault}")
    try:
        return Graph(structure, radius_graph(structure, cutoff))
    except NeighborError as error:
        raise UserInputError(f"structure {structure.id}: {error}") from None


def cost_slices(graphs: Sequence[Graph]) -> list[slice]:
    """Consecutive graphs in parts of no more than BATCH_COST; a single one above it stands alone."""
    parts: list[slice] = []
    start, load = 0, 0.0
    for place, each in enumerate(graphs):
        atoms, edges = len(each.structure.atomic_number), len(each.edges.sender)
        cost = float(COST.of(np.array([atoms]), np.array([edges]))[0])
        if place > start and load + cost > BATCH_COST:
            parts.append(slice(start, place))
            start, load = place, 0.0
        load += cost
    return [*parts, slice(start, len(graphs))] if graphs else []


def batch_of(graphs: Sequence[Graph]) -> Batch:
    """A batch on the CPU, in the precision of the structures' positions; the same as if it was read from shards.

    Args:
        graphs: at least one.
    """
    structures, edges = [each.structure for each in graphs], [each.edges for each in graphs]
    sizes = np.array([len(each.atomic_number) for each in structures], dtype=np.int64)
    first_atom = offsets(sizes)
    degree = np.concatenate([each.degree for each in edges]).astype(np.int64)
    edge_pointer = offsets(degree)
    sender = np.concatenate([each.sender + start for each, start in zip(edges, first_atom[:-1], strict=True)])
    image = np.concatenate([each.shift for each in edges])
    return Batch(
        atomic_number=torch.from_numpy(np.concatenate([each.atomic_number for each in structures]).astype(np.int32)),
        position=torch.from_numpy(np.concatenate([each.position for each in structures])),
        cell=torch.from_numpy(np.stack([each.cell for each in structures])),
        atom_graph=torch.from_numpy(np.repeat(np.arange(len(graphs), dtype=np.int32), sizes)),
        atom_pointer=torch.from_numpy(first_atom.astype(np.int32)),
        sender=torch.from_numpy(sender.astype(np.int32)),
        receiver=torch.from_numpy(np.repeat(np.arange(len(degree), dtype=np.int32), degree)),
        edge_pointer=torch.from_numpy(edge_pointer.astype(np.int32)),
        edge_image=torch.from_numpy(image) if image.any() else None,
        sample=torch.arange(len(graphs)),
    )
