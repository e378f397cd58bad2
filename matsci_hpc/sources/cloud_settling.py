"""Draws clouds until every atom has room and no cloud has more symmetry than its label says.

Only the orbits at fault are drawn again: those with an atom too near another one, or all orbits of a cloud with an
extra symmetry. Whole clouds would take far longer for many orbits about a high axis. In later rounds few clouds are
left; several variants of each are tried at once and the first good one is taken.
"""

from collections.abc import Generator, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.ragged import lengths, offsets
from matsci_hpc.sources import clouds as flat
from matsci_hpc.sources.cloud_drafts import Draft, of_radius_one, replaced
from matsci_hpc.sources.clouds import Integers, ranges
from matsci_hpc.sources.exact_random import Words
from matsci_hpc.sources.extra_symmetry import has_extra_symmetry
from matsci_hpc.sources.orbits import GroupsOfOrder, OrbitClouds, crowded_orbits
from matsci_hpc.sources.symmetry_sieve import suspects

LABEL_TOLERANCE = 1e-3
"""Angstrom. A cloud that a higher symmetry would describe to this accuracy is drawn again."""
MAX_ROUNDS = 1024
"""Times that orbits of a cloud are drawn at most, far more than settings that pass the trial ever need."""
VARIANTS = (1, 2, 4, 8, 16)
"""Variants of a cloud tried in the first rounds, and in all after them. Part of what defines the data."""
WIDTH = 2048
"""Clouds grown at once in rounds of several variants, about. It decides about time and memory alone."""


class Unsettled(NamedTuple):
    """Clouds of one order to be drawn: group (its number among those of the order), orbits and stream of each, [n]."""

    groups: GroupsOfOrder
    group: Integers
    orbits: Integers
    stream: Words


class _Suspects(NamedTuple):
    """Clouds that may have an extra symmetry: group and orbits of each [n], seed points [K, 3] and kinds [K]."""

    group: Integers
    orbits: Integers
    seed: flat.Floats
    kind: Integers


_Settling = Generator[_Suspects, NDArray[np.bool_], OrbitClouds]
"""Clouds on their way: asks which suspects have an extra symmetry and returns the clouds when all are acceptable."""


class CloudSettling:
    """What acceptable clouds need.

    Args:
        names: Schoenflies symbols of the groups, in the order of their numbers.
        operations: those of the groups, in the same order.
        min_distance: smallest distance of two atoms, angstrom.
    """

    def __init__(self, names: tuple[str, ...], operations: flat.Operations, min_distance: float) -> None:
        self._names = names
        self._operations = operations
        self._min_distance = min_distance

    def settled(self, wanted: Iterable[Unsettled], rounds: int = MAX_ROUNDS) -> list[OrbitClouds]:
        """Acceptable clouds of radius 1, those of each order.

        Clouds of several orders settle side by side: the suspects of all of them are looked at in one go.

        Raises:
            UserInputError: some clouds find no room in that many rounds.
        """
        ways = [self._settle(each, rounds) for each in wanted]
        settled: dict[int, OrbitClouds] = {}
        answers: dict[int, NDArray[np.bool_] | None] = dict.fromkeys(range(len(ways)))
        while answers:
            asked: dict[int, _Suspects] = {}
            for number, answer in answers.items():
                try:
                    asked[number] = next(ways[number]) if answer is None else ways[number].send(answer)
                except StopIteration as end:
                    settled[number] = end.value
            answers = dict(zip(asked, self._with_extra_symmetry(list(asked.values())), strict=True))
        return [settled[number] for number in range(len(ways))]

    def _with_extra_symmetry(self, asked: list[_Suspects]) -> list[NDArray[np.bool_]]:
        """Which of the suspects have a symmetry outside their group."""
        if not asked:
            return []
        group, orbits, seed, kind = map(np.concatenate, zip(*asked, strict=True))
        grown = flat.grow(self._operations, group, orbits, seed, kind)
        extra = has_extra_symmetry(grown, flat.seed_pairs(grown), LABEL_TOLERANCE)
        return np.split(extra, np.cumsum([len(each.group) for each in asked])[:-1])

    def _settle(self, wanted: Unsettled, rounds: int) -> _Settling:
        start = offsets(wanted.orbits)
        whole = Draft.empty(wanted.orbits, wanted.stream)
        pending = np.arange(len(wanted.group))
        result: OrbitClouds | None = None
        for number in range(rounds):
            draft, crowded, clouds = self._tried(wanted, whole, pending, number)
            faulty = crowded | (yield from self._extra(wanted.groups, clouds, crowded))[clouds.cloud]
            columns = ranges(start[pending], wanted.orbits[pending])
            result = clouds if result is None else replaced(result, columns, clouds)
            whole.point[:, columns], whole.kind[columns], whole.faulty[columns] = draft.point, draft.kind, faulty
            pending = pending[np.logical_or.reduceat(faulty, clouds.start[:-1])]
            if not len(pending):
                return result
        raise self._no_room(rounds, wanted.groups.numbers[wanted.group[pending]], wanted.orbits[pending])

    def _tried(
        self, wanted: Unsettled, whole: Draft, pending: Integers, number: int
    ) -> tuple[Draft, NDArray[np.bool_], OrbitClouds]:
        """The first variant of each pending cloud without crowded orbits, or the very first one, and what is crowded.

        No more than about `WIDTH` clouds are grown at once: of many, later variants only where earlier ones failed.
        """
        variants = VARIANTS[min(number, len(VARIANTS) - 1)]
        left, first = np.arange(len(pending)), 0
        found: tuple[Draft, NDArray[np.bool_], OrbitClouds] | None = None
        while True:
            width = min(variants - first, max(1, WIDTH // len(left)))
            attempts = number * max(VARIANTS) + first + np.arange(width)
            draft, crowded, clouds = self._best(wanted, whole, pending[left], attempts)
            bad = np.logical_or.reduceat(crowded, clouds.start[:-1])
            if found is None:
                found = draft, crowded, clouds
            elif not bad.all():
                _replace(found, left[~bad], draft, clouds, np.flatnonzero(~bad))
            left, first = left[bad], first + width
            if first >= variants or not len(left):
                return found

    def _best(
        self, wanted: Unsettled, whole: Draft, which: Integers, attempts: Integers
    ) -> tuple[Draft, NDArray[np.bool_], OrbitClouds]:
        """Of several attempts at each cloud the first without crowded orbits, or the very first; what is crowded."""
        width = len(attempts)
        trial = which.repeat(width)
        orbits = wanted.orbits[trial]
        attempt = np.tile(attempts, len(which)).repeat(orbits)
        draft = whole.redrawn(ranges(offsets(wanted.orbits)[trial], orbits), attempt)
        clouds = of_radius_one(wanted.groups, wanted.group[trial], orbits, draft)
        crowded = crowded_orbits(clouds, self._min_distance)
        if width == 1:
            return draft, crowded, clouds
        bad = np.logical_or.reduceat(crowded, clouds.start[:-1]).reshape(-1, width)
        best = np.arange(len(which)) * width + bad.argmin(axis=1)
        columns = ranges(clouds.start[best], wanted.orbits[which])
        return draft.chosen(columns), crowded[columns], clouds.chosen(best)

    def _extra(
        self, groups: GroupsOfOrder, clouds: OrbitClouds, crowded: NDArray[np.bool_]
    ) -> Generator[_Suspects, NDArray[np.bool_], NDArray[np.bool_]]:
        """Which clouds without crowded orbits have a symmetry outside their group: [n]."""
        extra = np.zeros(len(clouds.group), dtype=np.bool_)
        spacious = np.flatnonzero(~np.logical_or.reduceat(crowded, clouds.start[:-1]))
        if not len(spacious):
            return extra
        rest = clouds if len(spacious) == len(extra) else clouds.chosen(spacious)
        doubtful = np.flatnonzero(suspects(groups, rest, LABEL_TOLERANCE))
        if len(doubtful):
            few = rest.chosen(doubtful)
            seed = few.seed.T.astype(np.float64)
            extra[spacious[doubtful]] = yield _Suspects(groups.numbers[few.group], lengths(few.start), seed, few.kind)
        return extra

    def _no_room(self, rounds: int, group: Integers, orbits: Integers) -> UserInputError:
        pairs = dict.fromkeys((self._names[number], int(k)) for number, k in zip(group, orbits, strict=True))
        listed = ", ".join(f"{name} ({k} orbits)" for name, k in pairs)
        return UserInputError(
            f"no room in {rounds} tries for atoms at least {self._min_distance:g} angstrom apart in {listed}: "
            "lower min_distance, max_orbits or max_atoms"
        )


def _replace(
    found: tuple[Draft, NDArray[np.bool_], OrbitClouds], mine: Integers, by: Draft, clouds: OrbitClouds, good: Integers
) -> None:
    """Put some clouds and their drafts, the `good` ones without crowded orbits, in the places `mine`."""
    draft, crowded, before = found
    theirs = ranges(clouds.start[good], lengths(clouds.start)[good])
    columns = ranges(before.start[mine], lengths(before.start)[mine])
    draft.point[:, columns], draft.kind[columns] = by.point[:, theirs], by.kind[theirs]
    crowded[columns] = False
    replaced(before, columns, clouds.chosen(good))
