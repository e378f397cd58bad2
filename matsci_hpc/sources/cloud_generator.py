"""Draws symmetric point clouds, each of them a pure function of seed, split and its number.

A block decides the groups and sizes of its clouds and gives each a stream of random numbers of its own. Whatever is
drawn after that, redraws included, follows from the cloud's own stream, so a cloud is the same alone and among others.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matsci_hpc import point_groups
from matsci_hpc.errors import UserInputError
from matsci_hpc.ragged import lengths, offsets
from matsci_hpc.sources import clouds as flat
from matsci_hpc.sources.cloud_block import CloudBlock
from matsci_hpc.sources.cloud_drafts import ORDER, ROTATION
from matsci_hpc.sources.cloud_settling import CloudSettling, Unsettled
from matsci_hpc.sources.clouds import Integers, ranges
from matsci_hpc.sources.exact_random import ExactRandom, Single, Words, rotations, words
from matsci_hpc.sources.orbits import GroupsOfOrder, OrbitClouds, turned

BLOCK = 4096
"""Samples drawn together. Part of what defines the data: another value gives other samples.

As many as a shard has by default, so that ranks seldom draw the same block for two shards.
"""
TRIAL_CLOUDS = 8
TRIAL_ROUNDS = 128
"""At the start that many of the fullest clouds of every group must come out in that many rounds."""
VERSION = 2
"""Goes up when the same settings give other clouds; tests/sources/test_symmetry_version.py pins some of them."""


class CloudGenerator:
    """The settings of the clouds and what they need; `block` is a pure function of them and its arguments.

    Every cloud has the symmetry of its label and no more: it has enough generic orbits, and a cloud that
    comes within `LABEL_TOLERANCE` of a higher symmetry is drawn again, with the same class and number of
    orbits, so that the balance of classes stays. Measured with the detector of the tests at 1e-3 angstrom and
    the default settings: none of 10,000 labels over the 32 crystallographic groups was wrong.

    Jitter comes after all this: it can bring atoms nearer than `min_distance`, and it blurs the symmetry.
    """

    def __init__(
        self,
        groups: tuple[str, ...],
        *,
        seed: int,
        max_atoms: int,
        max_orbits: int,
        min_distance: float,
        jitter: float,
    ) -> None:
        """Check that every group can be drawn.

        Args:
            groups: Schoenflies symbols, the classes in the order of their numbers.
            seed: first part of the key of the random numbers.
            max_atoms: most atoms in a cloud.
            max_orbits: most orbits in a cloud; a group that needs more to be itself gets what it needs.
            min_distance: smallest distance of two atoms, angstrom.
            jitter: standard deviation of the noise on every coordinate, angstrom.

        Raises:
            UserInputError: a group needs more atoms, or finds no room for them at this distance.
        """
        large = {name: point_groups.minimum_atoms(name) for name in groups}
        large = {name: atoms for name, atoms in large.items() if atoms > max_atoms}
        if large:
            listed = ", ".join(f"{name} ({atoms})" for name, atoms in large.items())
            raise UserInputError(
                f"max_atoms is {max_atoms}, but these point groups need more atoms: {listed}; "
                f"set max_atoms to {max(large.values())} or leave them out of groups"
            )
        self.groups = groups
        self.seed = seed
        self.min_distance = min_distance
        self.jitter = jitter
        operations = flat.Operations(groups)
        self._order = operations.order
        self._settling = CloudSettling(groups, operations, min_distance)
        self._by_order = [GroupsOfOrder(int(order), groups) for order in np.unique(self._order)]
        self._place: Integers = np.empty(len(groups), dtype=np.intp)
        for each in self._by_order:
            self._place[each.numbers] = np.arange(len(each.numbers))
        self._fewest: Integers = np.array([point_groups.minimum_orbits(name) for name in groups], dtype=np.intp)
        self._most = np.maximum(self._fewest, np.minimum(max_orbits, max_atoms // self._order))
        self._try_fullest_clouds()

    def block(self, split: str, number: int) -> CloudBlock:
        """Samples `number * BLOCK` to `(number + 1) * BLOCK - 1` of a split, which has no end."""
        choice = self._choose(split, number)
        block = self._drawn(choice.group, choice.orbits, choice.stream)
        if self.jitter:
            _shake(block.position, self.jitter * choice.random.normal(block.position.shape))
        return block

    def samples(self, split: str, numbers: NDArray[np.int64]) -> CloudBlock:
        """Any samples of a split, in the order of the numbers: those of the whole blocks, to the last bit."""
        block, row = np.divmod(numbers, BLOCK)
        group, orbits = np.empty(len(numbers), dtype=np.intp), np.empty(len(numbers), dtype=np.intp)
        stream = np.empty(len(numbers), dtype=np.uint64)
        choices = [(block == number, self._choose(split, number)) for number in np.unique(block).tolist()]
        for mine, choice in choices:
            rows = row[mine]
            group[mine], orbits[mine], stream[mine] = choice.group[rows], choice.orbits[rows], choice.stream[rows]
        drawn = self._drawn(group, orbits, stream)
        if self.jitter:
            atoms = lengths(drawn.offset)
            noise = np.empty(drawn.position.shape)
            for mine, choice in choices:
                start = offsets(choice.orbits * self._order[choice.group])
                of_block = self.jitter * choice.random.normal((int(start[-1]), 3))
                noise[ranges(drawn.offset[:-1][mine], atoms[mine])] = of_block[ranges(start[row[mine]], atoms[mine])]
            _shake(drawn.position, noise)
        return drawn

    def sizes(self, split: str, number: int) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Atoms and point group of each cloud of a block, which are decided first: a small part of the work.

        Returns:
            int64 [BLOCK] and int16 [BLOCK], as `block` has them.
        """
        choice = self._choose(split, number)
        return (choice.orbits * self._order[choice.group]).astype(np.int64), choice.group.astype(np.int16)

    def _drawn(self, group: Integers, orbits: Integers, stream: Words) -> CloudBlock:
        """Clouds without jitter: those of each order in turn, then the order of their atoms."""
        start = offsets(orbits * self._order[group])
        atoms = np.empty((start[-1], 4), dtype=np.float32)
        rotation = rotations(stream, ROTATION)
        of_order: list[Integers] = []
        wanted: list[Unsettled] = []
        for groups in self._by_order:
            chosen = np.flatnonzero(self._order[group] == groups.order)
            if len(chosen):
                of_order.append(chosen)
                wanted.append(Unsettled(groups, self._place[group[chosen]], orbits[chosen], stream[chosen]))
        for chosen, clouds in zip(of_order, self._settling.settled(wanted), strict=True):
            _put(atoms, start[chosen], clouds, turned(clouds, rotation.take(chosen, axis=2)))
        shuffled = _quads(atoms)[_shuffle(stream, start)].view(np.float32).reshape(-1, 4)
        position = np.empty((len(atoms), 3), dtype=np.float32)
        for axis in range(3):  # by columns: copying rows of three takes four times as long
            position[:, axis] = shuffled[:, axis]
        return CloudBlock(
            position=position,
            atomic_number=shuffled[:, 3].astype(np.uint8),
            offset=start.astype(np.int64),
            point_group=group.astype(np.int16),
        )

    def _choose(self, split: str, number: int) -> "_Choice":
        """What a block decides for each of its clouds."""
        random = ExactRandom(self.seed, split, number)
        group = random.below(len(self.groups), BLOCK)
        orbits = self._fewest[group] + random.below(self._most[group] - self._fewest[group] + 1, BLOCK)
        return _Choice(group, orbits, random.streams(BLOCK), random)

    def _try_fullest_clouds(self) -> None:
        """Impossible settings fail now, not in the third hour of a job."""
        random = ExactRandom(self.seed, "", 0)
        for groups in self._by_order:
            place = np.repeat(np.arange(len(groups.numbers)), TRIAL_CLOUDS)
            most = self._most[groups.numbers[place]]
            self._settling.settled([Unsettled(groups, place, most, random.streams(len(place)))], TRIAL_ROUNDS)


class _Choice(NamedTuple):
    """What a block of n clouds begins with: group, number of orbits and stream of each, [n]; jitter goes on from it."""

    group: Integers
    orbits: Integers
    stream: Words
    random: ExactRandom


def _shake(position: Single, noise: NDArray[np.float64]) -> None:
    position[:] = (position + noise).astype(np.float32)


def _quads(atoms: Single) -> NDArray[np.complex128]:
    """Rows of four numbers as single elements of 16 bytes, which numpy gathers and scatters fast: [n, 4] to [n]."""
    return atoms.view(np.complex128)[:, 0]


def _put(atoms: Single, start: Integers, clouds: OrbitClouds, position: Single) -> None:
    """Write atoms, each a row (x, y, z, atomic number), to their clouds, orbit by orbit; `start` is [n]."""
    order = position.shape[1]
    rows = np.empty((*position.shape[1:], 4), dtype=np.float32)
    for axis in range(3):
        rows[:, :, axis] = position[axis]
    rows[:, :, 3] = clouds.kind
    orbit = np.arange(len(clouds.cloud)) - clouds.start[clouds.cloud]
    first = start[clouds.cloud] + orbit * order
    _quads(atoms)[(first + np.arange(order)[:, None]).ravel()] = _quads(rows.reshape(-1, 4))


def _shuffle(stream: Words, start: Integers) -> Integers:
    """For every place in the block the atom that comes there: each cloud's own atoms in random order.

    The order of the operations would tell the group. The words that are sorted hold cloud, random bits and number
    of the atom, from the highest bits down; a cloud has at most 255 atoms.
    """
    atoms = lengths(start)
    cloud = np.repeat(np.arange(len(atoms), dtype=np.uint64), atoms)
    number = (np.arange(start[-1]) - np.repeat(start[:-1], atoms)).astype(np.uint64)
    random = words(np.repeat(stream, atoms), number + np.uint64(ORDER)) >> np.uint64(32)
    keys = (cloud << np.uint64(40)) | (random << np.uint64(8)) | number
    keys.sort()
    return np.asarray((keys & np.uint64(255)).astype(np.intp) + np.repeat(start[:-1], atoms), dtype=np.intp)
