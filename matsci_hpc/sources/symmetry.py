"""Synthetic point clouds labelled with their point group: the pretraining task.

The idea is that of K. L. K. Lee et al., arXiv 2310.07864: apply the operations of a point group to a few
random atoms and let the network name the group. How a cloud is drawn stands in `cloud_generator`.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from matsci_hpc import point_groups, subgroups
from matsci_hpc.config.sources import SymmetryClouds, clouds_of_splits
from matsci_hpc.config.sources import SymmetrySource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.ragged import offsets
from matsci_hpc.sources.base import FlatSamples
from matsci_hpc.sources.cloud_block import CloudBlock
from matsci_hpc.sources.cloud_generator import BLOCK, VERSION, CloudGenerator
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec

DIGITS = 9
"""Of the number in the id of a sample, with zeros in front."""
ROUNDING = 1e-5
"""Angstrom. Far more than rotation in single precision moves an atom of a cloud of radius 1."""


class SymmetrySource:
    """Symmetric point clouds as numbered inputs: the splits one after the other.

    Sample i of a split depends on the seed, the name of the split, i and the settings of the generator. It
    does not depend on how many samples there are, so more can be made later, nor on who reads which range.

    Attributes:
        targets: `point_group` (class) and, if asked for, `subgroups` (multilabel over the same names).
        counts: number of samples of each split, in the order of the inputs.
        splits: their names.
        identity: version of the generator, since the config determines all else.
        remarks: none.
        generators: seed and split; whatever else differs, clouds of the same random numbers are alike.
        generator: draws whole blocks in flat arrays, for uses that need no object per sample.
    """

    def __init__(self, generator: CloudGenerator, counts: dict[str, int], *, with_subgroups: bool) -> None:
        self.generator = generator
        self.counts = counts
        self.splits = tuple(counts)
        self.identity = f"clouds {VERSION}"
        self.remarks: dict[str, int] = {}
        self.generators = tuple(clouds_of_splits(generator.seed, counts))
        self.targets = {"point_group": TargetSpec(kind="class", classes=generator.groups)}
        self._last: tuple[str, int, CloudBlock] | None = None
        self._contains = None
        if with_subgroups:
            self.targets["subgroups"] = TargetSpec(kind="multilabel", classes=generator.groups)
            rows = [subgroups.contains(name, generator.groups) for name in generator.groups]
            self._contains = np.array(rows, dtype=np.uint8)

    @classmethod
    def from_config(
        cls,
        config: Config,
        splits: dict[str, float],
        staging: Path | None = None,  # noqa: ARG003 - where other sources unpack
    ) -> Self:
        """Build the source that a config describes.

        Args:
            config: the section `source` of `matsci-hpc prep`.
            splits: share of each split; used where `samples` is one number for all of them.
            staging: not used; other sources unpack there.

        Raises:
            UserInputError: an unknown group, a group that cannot fit, or no room for the atoms.
        """
        counts = divided(config.samples, splits) if isinstance(config.samples, int) else dict(config.samples)
        return cls(generator_of(config), counts, with_subgroups=config.subgroups)

    def __len__(self) -> int:
        """Number of samples in all splits."""
        return sum(self.counts.values())

    def read(self, start: int, stop: int) -> Iterator[Structure]:
        """The samples `start` to `stop - 1`; every block that they touch is drawn whole."""
        for split, number, rows in self._pieces(start, stop):
            yield from self._structures(split, number, self._drawn(split, number), rows)

    def read_flat(self, start: int, stop: int) -> FlatSamples:
        """The same samples as arrays."""
        pieces = list(self._pieces(start, stop))
        blocks = [self._drawn(split, number) for split, number, _ in pieces]
        slices = [slice(rows.start, rows.stop) for _, _, rows in pieces]
        parts = list(zip(blocks, slices, strict=True))
        atoms = [slice(block.offset[rows.start], block.offset[rows.stop]) for block, rows in parts]
        sizes = np.concatenate([np.diff(block.offset)[rows] for block, rows in parts])
        group = np.concatenate([block.point_group[rows] for block, rows in parts])
        targets: dict[str, NDArray[np.generic]] = {"point_group": group}
        if self._contains is not None:
            targets["subgroups"] = self._contains[group]
        splits = np.array([self.splits.index(split) for split, _, _ in pieces], dtype=np.uint8)
        return FlatSamples(
            id=np.concatenate(
                [numbered(split, number * BLOCK + rows.start, len(rows)) for split, number, rows in pieces]
            ),
            atomic_number=np.concatenate(
                [block.atomic_number[some] for block, some in zip(blocks, atoms, strict=True)]
            ),
            position=np.concatenate([block.position[some] for block, some in zip(blocks, atoms, strict=True)]),
            offset=offsets(sizes).astype(np.int64),
            split=np.repeat(splits, [len(rows) for _, _, rows in pieces]),
            targets=targets,
            apart=0.0 if self.generator.jitter else self.generator.min_distance - ROUNDING,
        )

    def block(self, split: str, number: int) -> CloudBlock:
        """Samples `number * BLOCK` to `(number + 1) * BLOCK - 1` of a split as flat arrays.

        Blocks do not end where the split does: training may go on drawing for ever.
        """
        return self.generator.block(split, number)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[str, int, range]]:
        """The blocks that hold the inputs `start` to `stop - 1`: split, number of the block and rows of it."""
        first = 0
        for split, count in self.counts.items():
            begin, end = max(start - first, 0), min(stop - first, count)
            first += count
            for number in range(begin // BLOCK, -(-end // BLOCK)) if begin < end else ():
                yield split, number, range(max(begin - number * BLOCK, 0), min(end - number * BLOCK, BLOCK))

    def _drawn(self, split: str, number: int) -> CloudBlock:
        """A block, kept until another one is wanted: two shards, or the calls of a small reader, may share it."""
        if self._last is None or self._last[:2] != (split, number):
            self._last = split, number, self.block(split, number)
        return self._last[2]

    def _structures(self, split: str, number: int, block: CloudBlock, rows: range) -> Iterator[Structure]:
        # All samples share these; a write to one of them would be a write to all.
        cell, pbc = np.zeros((3, 3), dtype=np.float32), np.zeros(3, dtype=np.bool_)
        cell.flags.writeable = pbc.flags.writeable = False
        offset, groups = block.offset.tolist(), block.point_group.tolist()
        for row in rows:
            atoms = slice(offset[row], offset[row + 1])
            structure = Structure(
                id=f"{split}-{number * BLOCK + row:0{DIGITS}d}",
                atomic_number=block.atomic_number[atoms],
                position=block.position[atoms],
                cell=cell,
                pbc=pbc,
                targets={"point_group": groups[row]},
                split=split,
            )
            if self._contains is not None:
                structure.targets["subgroups"] = self._contains[groups[row]]
            yield structure


def numbered(split: str, start: int, count: int) -> NDArray[np.bytes_]:
    """The ids of consecutive samples of a split: bytes [count], such as b"train-000004096"."""
    prefix = np.frombuffer(f"{split}-".encode(), dtype=np.uint8)
    number = np.arange(start, start + count)
    digits = max(DIGITS, len(str(start + count - 1)))
    text = np.empty((count, len(prefix) + digits), dtype=np.uint8)
    text[:, : len(prefix)] = prefix
    for place in range(digits):
        text[:, -1 - place] = number % 10 + ord("0")
        number //= 10
    names: NDArray[np.bytes_] = text.view(f"S{text.shape[1]}")[:, 0]
    if digits > DIGITS and start < 10 ** (digits - 1):
        short = 10 ** (digits - 1) - start
        names[:short] = numbered(split, start, short)
    return names


def generator_of(config: SymmetryClouds) -> CloudGenerator:
    """The generator that a config describes.

    Raises:
        UserInputError: an unknown group, a group that cannot fit, or no room for the atoms.
    """
    return CloudGenerator(
        _chosen_groups(config),
        seed=config.seed,
        max_atoms=config.max_atoms,
        max_orbits=config.max_orbits,
        min_distance=config.min_distance,
        jitter=config.jitter,
    )


def divided(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Divide a number of samples over splits by largest remainder; ties go to the earlier split."""
    exact = {name: total * share for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in itertools.islice(itertools.cycle(by_remainder), total - sum(counts.values())):
        counts[name] += 1
    return counts


def _chosen_groups(config: SymmetryClouds) -> tuple[str, ...]:
    if config.groups == "crystallographic":
        return point_groups.crystallographic()
    if config.groups == "all":
        names = point_groups.all_groups(config.max_axial_order)
        fitting = tuple(name for name in names if point_groups.minimum_atoms(name) <= config.max_atoms)
        if not fitting:
            raise UserInputError(f"no point group fits into max_atoms: {config.max_atoms}; C1 needs 4 atoms")
        return fitting
    names = tuple(config.groups)
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        fault = f"listed twice: {', '.join(twice)}" if twice else "an empty list"
        raise UserInputError(f"groups: {fault}; give each point group once, at least one")
    return names
