"""Clouds of groups of one order, with their orbits along the last axis.

An orbit of a group of order g has g atoms, so the atoms of K orbits are an array [3, g, K] without gaps, and every
step runs over whole rows of it: no loop over clouds, no index per atom. Single precision, and only operations that
round in one way, so that all machines draw the same clouds. Clouds of other orders stand in other arrays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc import point_groups
from matsci_hpc.ragged import lengths, offsets
from matsci_hpc.sources.clouds import Integers, ranges
from matsci_hpc.sources.exact_random import Single, squared_norm
from matsci_hpc.subgroups import multiplication_table


class GroupsOfOrder:
    """The operations of all groups of one order.

    Attributes:
        order: number of operations of each group.
        numbers: number of each group in the list of all groups, [groups].
        matrix: float32 [3, 3, order, groups]: column and row of the matrix, operation, group; the identity first.
        total: float32 [3, 3, groups]: column and row of the sum of all operations.
        quotient: [groups, order, order]: number of the operation `inverse(p) @ q`.
    """

    def __init__(self, order: int, names: tuple[str, ...]) -> None:
        chosen = [number for number, name in enumerate(names) if point_groups.order(name) == order]
        stacks = [point_groups.matrices(names[number]) for number in chosen]
        self.order = order
        self.numbers: Integers = np.array(chosen, dtype=np.intp)
        self.matrix = np.ascontiguousarray(np.stack(stacks).transpose(3, 2, 1, 0).astype(np.float32))
        self.total = np.ascontiguousarray(np.stack(stacks).sum(axis=1).transpose(2, 1, 0).astype(np.float32))
        tables = [multiplication_table(stack) for stack in stacks]
        self.quotient = np.stack([table[np.argmax(table == 0, axis=1)] for table in tables])


@dataclass(frozen=True, slots=True)
class OrbitClouds:
    """Clouds of groups of one order g: n clouds, K orbits in all.

    Attributes:
        group: place of each cloud's group in its `GroupsOfOrder`, [n].
        start: first orbit of each cloud, [n + 1].
        cloud: cloud of each orbit, [K].
        seed: float32 [3, K], the first atom of each orbit.
        kind: atomic number of each orbit, [K].
        position: float32 [3, g, K].
    """

    group: Integers
    start: Integers
    cloud: Integers
    seed: Single
    kind: Integers
    position: Single

    def chosen(self, clouds: Integers) -> "OrbitClouds":
        """Some of the clouds."""
        orbits = lengths(self.start)[clouds]
        columns = ranges(self.start[clouds], orbits)
        return OrbitClouds(
            group=self.group[clouds],
            start=offsets(orbits),
            cloud=np.repeat(np.arange(len(clouds)), orbits),
            seed=self.seed.take(columns, axis=1),
            kind=self.kind[columns],
            position=self.position.take(columns, axis=2),
        )


def grow(groups: GroupsOfOrder, group: Integers, orbits: Integers, seed: Single, kind: Integers) -> OrbitClouds:
    """Apply every operation of a cloud's group to its seed points."""
    cloud = np.repeat(np.arange(len(group)), orbits)
    matrix = groups.matrix.take(group[cloud], axis=3)
    return OrbitClouds(group, offsets(orbits), cloud, seed, kind, _products(matrix, seed[:, None]))


def turned(clouds: OrbitClouds, rotation: NDArray[np.float64]) -> Single:
    """Positions of the atoms after a rotation of each cloud, [3, 3, n]: float32 [3, g, K]."""
    matrix = rotation.astype(np.float32).transpose(1, 0, 2).take(clouds.cloud, axis=2)
    return _products(matrix[:, :, None], clouds.position)


def centroids(groups: GroupsOfOrder, clouds: OrbitClouds) -> Single:
    """Mean of the atoms of each cloud: float32 [3, n].

    The sum of an orbit is the sum of all operations, applied to its seed point. So nothing is added up in an order that
    numpy might choose by the number of clouds: a cloud has the same centroid alone and among others.
    """
    sums = _products(groups.total.take(clouds.group[clouds.cloud], axis=2), clouds.seed)
    atoms = groups.order * lengths(clouds.start)
    return np.asarray(np.add.reduceat(sums, clouds.start[:-1], axis=1) / atoms, dtype=np.float32)


def crowded_orbits(clouds: OrbitClouds, distance: float) -> NDArray[np.bool_]:
    """Which orbits have an atom nearer than a distance to another atom of the cloud: [K].

    Up to symmetry every pair of atoms has a seed point in it, and which of the two orbits gives it does not matter.
    """
    columns = np.arange(len(clouds.cloud))
    partners = clouds.start[clouds.cloud + 1] - columns
    first, second = np.repeat(columns, partners), ranges(columns, partners)
    difference = clouds.position.take(second, axis=2)
    difference -= clouds.seed.take(first, axis=1)[:, None]
    squared = squared_norm(difference)
    squared[0, first == second] = np.inf  # the seed point itself
    close = squared.min(axis=0) < np.float32(distance) ** 2
    crowded = np.zeros(len(columns), dtype=np.bool_)
    crowded[first[close]] = crowded[second[close]] = True
    return crowded


def _products(matrix: Single, vector: Single) -> Single:
    """Matrices [column, row, ...] times vectors [column, ...], summed in a fixed order: [row, ...]."""
    total: Single = matrix[0] * vector[0]
    for column in (1, 2):
        total += matrix[column] * vector[column]
    return total
