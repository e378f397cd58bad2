"""A cheap look at every batch for what preparation never lets through: damage, or shards of another making.

Edges are by far the most of a batch, so two atoms on top of each other are found without them. In fractional
coordinates f, atoms that coincide, maybe as images, differ by integers. So t = f . m for integers m is equal for them
modulo 1, and sorting the atoms of a graph by t brings them together; only neighbours in this order are compared.
"""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.structure import MAX_ATOMIC_NUMBER, MAX_COORDINATE, MIN_DISTANCE

Floats = NDArray[np.float64]
_DIRECTION = np.array([1.0, 2.0, 4.0])
"""The integers m. Larger ones set more atoms of symmetric crystals apart, and bring more others close."""
_NO_LATTICE = 1024.0 * np.eye(3)
"""Stands in for the missing cell of a cloud, which it need not hold: folding adds comparisons, not coincidences."""


def checked_batch(collection: Collection, samples: NDArray[np.int64], *, pin: bool = False) -> Batch:
    """Collate samples and look at them; arguments and errors of `collate` and `refuse_absurd`."""
    batch = collate(collection, samples, pin=pin)
    refuse_absurd(collection, batch)
    return batch


def refuse_absurd(collection: Collection, batch: Batch) -> None:
    """Raise an error if a sample of a batch cannot be what preparation wrote.

    Args:
        collection: names the samples.
        batch: on the CPU, in float32, as collated.

    Raises:
        MachineError: a number that is not finite or absurd, an unknown element, an empty graph, a sender beyond its
            graph, or two atoms at one place; names the file, the row and the id.
    """
    if batch.graphs == 0:
        return
    pointer, graph = batch.atom_pointer.numpy(), batch.atom_graph.numpy()
    position, cell, number = batch.position.numpy(), batch.cell.numpy(), batch.atomic_number.numpy()

    def refuse(g: Any, reason: str) -> NoReturn:
        name = collection.sample_name(int(batch.sample[int(g)]))
        raise MachineError(f"{name}: {reason}; the data set is damaged, prepare it again")

    sizes = np.diff(pointer)
    if sizes.min() <= 0:
        refuse(sizes.argmin(), "no atoms")
    if not np.abs(position).max() <= MAX_COORDINATE:  # also where it is no number
        atom = int(np.flatnonzero(~(np.abs(position) <= MAX_COORDINATE).all(axis=1))[0])
        refuse(graph[atom], f"atom {atom - pointer[graph[atom]]} is at {position[atom].tolist()} angstrom")
    if not np.abs(cell).max() <= MAX_COORDINATE:
        g = int(np.flatnonzero(~(np.abs(cell) <= MAX_COORDINATE).all(axis=(1, 2)))[0])
        refuse(g, f"the cell is {cell[g].tolist()} angstrom")
    if number.min() < 1 or number.max() > MAX_ATOMIC_NUMBER:
        atom = int(np.flatnonzero((number < 1) | (number > MAX_ATOMIC_NUMBER))[0])
        refuse(graph[atom], f"atomic number {number[atom]}, outside 1..{MAX_ATOMIC_NUMBER}")
    beyond = _sender_beyond(batch)
    if beyond is not None:
        refuse(beyond, "the sender of an edge is not one of its atoms")
    close = coincident_atoms(position.astype(np.float64), graph, cell.astype(np.float64))
    if close is not None:
        first, second, distance = close
        start = pointer[graph[first]]
        refuse(graph[first], f"atoms {first - start} and {second - start} are {distance:.4f} angstrom apart")


def _sender_beyond(batch: Batch) -> int | None:
    """A graph with an edge from an atom that it does not have, if there is one."""
    pointer, sender = batch.atom_pointer.numpy(), batch.sender.numpy()
    first_edge = batch.edge_pointer.numpy()[pointer]
    wired = np.flatnonzero(np.diff(first_edge))
    if len(wired) == 0:
        return None
    last_sender = np.maximum.reduceat(sender, first_edge[wired])
    beyond = np.flatnonzero(last_sender >= pointer[wired + 1])
    return int(wired[beyond[0]]) if len(beyond) else None


def coincident_atoms(position: Floats, graph: NDArray[np.int32], cell: Floats) -> tuple[int, int, float] | None:
    """Two atoms of one graph, or an atom and an image of another, that are nearer than MIN_DISTANCE.

    Args:
        position: [A, 3], angstrom.
        graph: [A], ascending.
        cell: [G, 3, 3], angstrom, zeros where there is no lattice.

    Returns:
        Both atoms and their distance in angstrom, or None.
    """
    inverse = _inverses(cell)
    reciprocal = inverse @ _DIRECTION  # of each graph; t = x . reciprocal
    turn = np.einsum("ij,ij->i", position, reciprocal[graph])
    turn -= np.floor(turn)
    # Twice the tolerance: t of large coordinates is rounded, and the exact distance decides in the end.
    tolerance = (2 * MIN_DISTANCE * np.sqrt(np.einsum("ij,ij->i", reciprocal, reciprocal)))[graph]
    # Graphs lie 3 apart, so that atoms just above t = 0 can stand a second time just above t = 1.
    key, atom = 3.0 * graph + turn, np.arange(len(graph))
    again = np.flatnonzero(turn < tolerance)
    key, atom = np.concatenate((key, key[again] + 1.0)), np.concatenate((atom, again))
    order = np.argsort(key)
    key, atom = key[order], atom[order]
    reach = key + tolerance[atom]
    behind = np.arange(len(key))
    for step in range(1, len(key)):
        behind = behind[: np.searchsorted(behind, len(key) - step)]
        behind = behind[key[behind + step] < reach[behind]]
        if len(behind) == 0:
            return None
        found = _nearest(position, cell, inverse, graph, atom[behind], atom[behind + step])
        if found is not None:
            return found
    return None


def _nearest(
    position: Floats,
    cell: Floats,
    inverse: Floats,
    graph: NDArray[np.int32],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
) -> tuple[int, int, float] | None:
    """The nearest of some pairs of atoms, if it is nearer than MIN_DISTANCE."""
    apart = one != other
    one, other = one[apart], other[apart]
    if len(one) == 0:
        return None
    vector = position[other] - position[one]
    at = graph[one]
    image = np.rint(np.einsum("ij,ijk->ik", vector, inverse[at]))
    vector -= np.einsum("ij,ijk->ik", image, cell[at])  # a cloud has a cell of zeros, so nothing is taken away
    squared = np.einsum("ij,ij->i", vector, vector)
    pair = int(squared.argmin())
    if squared[pair] >= MIN_DISTANCE**2:
        return None
    first, second = sorted((int(one[pair]), int(other[pair])))
    return first, second, float(np.sqrt(squared[pair]))


def _inverses(cell: Floats) -> Floats:
    """Inverse cells [G, 3, 3]; of a slab or a wire as far as there is one, of a cloud that of a large cube."""
    usable = np.abs(np.linalg.det(cell)) > 1e-6
    inverse = np.linalg.inv(np.where(usable[:, None, None], cell, _NO_LATTICE))
    for g in np.flatnonzero(~usable & cell.any(axis=(1, 2))):
        inverse[g] = np.linalg.pinv(cell[g])
    return inverse
