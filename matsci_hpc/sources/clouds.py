"""Many point clouds in flat arrays: seed points to orbits, and the distances within each cloud.

Clouds of a block differ in their group and their number of orbits. Their atoms stand one after the other,
cloud by cloud, orbit by orbit, operation by operation, and every step runs over all atoms at once: no loop
over clouds, no padding. The first operation of every group is the identity, so the first atom of an orbit is
its seed point.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc import point_groups
from matsci_hpc.ragged import lengths, offsets

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


def ranges(starts: Integers, counts: Integers) -> Integers:
    """The numbers starts[i] .. starts[i] + counts[i] - 1 of every run, one run after the other."""
    ends = counts.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    shift = (starts - (ends - counts)).repeat(counts)
    shift += np.arange(total)
    return np.asarray(shift, dtype=np.intp)


def dots(u: Floats, v: Floats) -> Floats:
    """Scalar products of rows of three, [n, 3] and [n, 3] to [n].

    Sums in a fixed order without fused operations: einsum may round otherwise on another processor, or for other n.
    """
    total: Floats = u[:, 0] * v[:, 0]
    total += u[:, 1] * v[:, 1]
    total += u[:, 2] * v[:, 2]
    return total


def products(matrices: Floats, vectors: Floats) -> Floats:
    """Matrices times vectors, [n, 3, 3] and [n, 3] to [n, 3], summed as in `dots`."""
    image = np.empty(vectors.shape)
    for row in range(3):
        image[:, row] = dots(matrices[:, row], vectors)
    return image


def first_maximum(values: NDArray[np.floating], start: Integers) -> Integers:
    """Index into `values` of the largest one of each run; runs are not empty, `start` is [runs + 1]."""
    largest = np.maximum.reduceat(values, start[:-1])
    hits = np.flatnonzero(values == largest.repeat(lengths(start)))
    return np.asarray(hits[hits.searchsorted(start[:-1])], dtype=np.intp)


class Operations:
    """The operations of several groups in one stack.

    Attributes:
        matrix: float64 [all operations, 3, 3].
        start: [groups]: where each group begins in the stack.
        order: [groups]: number of its operations.
    """

    def __init__(self, groups: tuple[str, ...]) -> None:
        stacks = [point_groups.matrices(name) for name in groups]
        self.matrix = np.concatenate(stacks)
        self.order: Integers = np.array([len(stack) for stack in stacks], dtype=np.intp)
        self.start = offsets(self.order)[:-1]


@dataclass(frozen=True, slots=True)
class Clouds:
    """Point clouds and who is whose, for `clouds` clouds with `orbits` orbits and `atoms` atoms in all.

    Attributes:
        position: float64 [atoms, 3].
        kind: atomic number, [atoms].
        atom_cloud: cloud of each atom, [atoms].
        atom_start: first atom of each cloud, [clouds + 1].
        orbit_cloud: cloud of each orbit, [orbits].
        orbit_start: first orbit of each cloud, [clouds + 1].
        orbit_atom: first atom of each orbit (its seed point), [orbits].
    """

    position: Floats
    kind: Integers
    atom_cloud: Integers
    atom_start: Integers
    orbit_cloud: Integers
    orbit_start: Integers
    orbit_atom: Integers


def grow(operations: Operations, group: Integers, orbits: Integers, seed: Floats, kind: Integers) -> Clouds:
    """Apply every operation of a cloud's group to its seed points.

    Args:
        operations: the stack of operations.
        group: group of each cloud, [clouds].
        orbits: number of seed points of each cloud, [clouds].
        seed: float64 [sum of orbits, 3].
        kind: atomic number of each seed point, [sum of orbits].
    """
    orbit_cloud = np.repeat(np.arange(len(group)), orbits)
    orbit_order = operations.order[group[orbit_cloud]]
    orbit_of_atom = np.repeat(np.arange(len(seed)), orbit_order)
    operation = ranges(operations.start[group[orbit_cloud]], orbit_order)
    return Clouds(
        position=products(operations.matrix[operation], seed[orbit_of_atom]),
        kind=kind[orbit_of_atom],
        atom_cloud=orbit_cloud[orbit_of_atom],
        atom_start=offsets(orbits * operations.order[group]),
        orbit_cloud=orbit_cloud,
        orbit_start=offsets(orbits),
        orbit_atom=offsets(orbit_order)[:-1],
    )


@dataclass(frozen=True, slots=True)
class SeedPairs:
    """Every seed point with every atom of its cloud: up to symmetry these are all pairs of atoms.

    Attributes:
        orbit: orbit whose seed point is the one end, [pairs].
        atom: the other end, [pairs].
        distance: float64 [pairs], in the unit of the positions.
    """

    orbit: Integers
    atom: Integers
    distance: Floats


def seed_pairs(clouds: Clouds) -> SeedPairs:
    """Distances from every seed point to every atom of its cloud, itself included (at distance 0)."""
    atoms = lengths(clouds.atom_start)[clouds.orbit_cloud]
    orbit = np.repeat(np.arange(len(atoms)), atoms)
    atom = ranges(clouds.atom_start[clouds.orbit_cloud], atoms)
    # Rows of the seed points repeat, so repeat() with counts is a quarter of the cost of an index array.
    difference = clouds.position[atom]
    difference -= np.repeat(clouds.position[clouds.orbit_atom], atoms, axis=0)
    return SeedPairs(orbit, atom, np.sqrt(dots(difference, difference)))


def nearest(clouds: Clouds, pairs: SeedPairs) -> Floats:
    """Distance from the atoms of an orbit to the nearest other atom, infinite for a lone atom: [orbits]."""
    apart = np.where(clouds.orbit_atom[pairs.orbit] == pairs.atom, np.inf, pairs.distance)
    atoms = lengths(clouds.atom_start)[clouds.orbit_cloud]
    return np.asarray(np.minimum.reduceat(apart, offsets(atoms)[:-1]))
