"""Drafts of clouds: the points and kinds that the stream of a cloud gives its orbits, attempt by attempt."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.ragged import offsets
from matsci_hpc.sources.clouds import Integers, ranges
from matsci_hpc.sources.exact_random import MOST_TRIES, Single, Words, below, in_ball, squared_norm
from matsci_hpc.sources.orbits import GroupsOfOrder, OrbitClouds, grow

HEAVIEST = 99
"""Atomic numbers are 1 (H) to this (Es)."""
MOST_ORBITS = 256
POINTS, KINDS, ROTATION, ORDER = (number << 40 for number in range(4))
"""Where in the stream of a cloud its numbers are: points and kinds of the orbits, rotation, order of the atoms."""


class Draft(NamedTuple):
    """Orbits as drawn: points in the unit ball [3, K], atomic numbers [K], which are to be drawn again [K].

    Besides, the stream of each orbit's cloud [K] and its number in the cloud [K].
    """

    point: Single
    kind: Integers
    faulty: NDArray[np.bool_]
    stream: Words
    number: Integers

    @classmethod
    def empty(cls, orbits: Integers, stream: Words) -> "Draft":
        """All orbits yet to be drawn."""
        total = int(orbits.sum())
        return cls(
            point=np.empty((3, total), np.float32),
            kind=np.empty(total, np.intp),
            faulty=np.ones(total, np.bool_),
            stream=np.repeat(stream, orbits),
            number=ranges(np.zeros_like(orbits), orbits),
        )

    def chosen(self, columns: Integers) -> "Draft":
        """Some of the orbits."""
        return Draft(
            point=self.point.take(columns, axis=1),
            kind=self.kind[columns],
            faulty=self.faulty[columns],
            stream=self.stream[columns],
            number=self.number[columns],
        )

    def redrawn(self, columns: Integers, attempt: Integers) -> "Draft":
        """The orbits of these columns, the faulty ones as in the attempt of each column."""
        draft = self.chosen(columns)
        new = np.flatnonzero(draft.faulty)
        stream, which = draft.stream[new], (attempt[new] * MOST_ORBITS + draft.number[new]).astype(np.uint64)
        draft.point[:, new] = in_ball(stream, which * np.uint64(MOST_TRIES) + np.uint64(POINTS), 3)
        draft.kind[new] = 1 + below(HEAVIEST, stream, which + np.uint64(KINDS))
        return draft


def of_radius_one(groups: GroupsOfOrder, group: Integers, orbits: Integers, draft: Draft) -> OrbitClouds:
    """The clouds that a draft grows to, scaled so that the farthest atom of each has the distance 1 from its origin."""
    radius = np.sqrt(np.maximum.reduceat(squared_norm(draft.point), offsets(orbits)[:-1]))
    return grow(groups, group, orbits, draft.point / np.repeat(radius, orbits), draft.kind)


def replaced(clouds: OrbitClouds, columns: Integers, by: OrbitClouds) -> OrbitClouds:
    """Clouds with some of their orbits replaced, in place."""
    clouds.seed[:, columns], clouds.kind[columns], clouds.position[:, :, columns] = by.seed, by.kind, by.position
    return clouds
