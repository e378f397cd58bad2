"""Synthetic point clouds labelled with their point group: the pretraining task.

The idea is that of K. L. K. Lee et al., arXiv 2310.07864: apply the operations of a point group to a few
random atoms and let the network name the group. How a cloud is drawn stands in `cloud_generator`.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from matsci_hpc import point_groups, subgroups
from matsci_hpc.config.sources import SymmetryClouds
from matsci_hpc.config.sources import SymmetrySource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.cloud_generator import BLOCK, CloudBlock, CloudGenerator
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec


class SymmetrySource:
    """Symmetric point clouds as numbered inputs: the splits one after the other.

    Sample i of a split depends on the seed, the name of the split, i and the settings of the generator. It
    does not depend on how many samples there are, so more can be made later, nor on who reads which range.

    Attributes:
        targets: `point_group` (class) and, if asked for, `subgroups` (multilabel over the same names).
        counts: number of samples of each split, in the order of the inputs.
        splits: their names.
        identity: empty, since the config determines every sample.
        remarks: none.
        generator: draws whole blocks in flat arrays, for uses that need no object per sample.
    """

    def __init__(self, generator: CloudGenerator, counts: dict[str, int], *, with_subgroups: bool) -> None:
        self.generator = generator
        self.counts = counts
        self.splits = tuple(counts)
        self.identity = ""
        self.remarks: dict[str, int] = {}
        self.targets = {"point_group": TargetSpec(kind="class", classes=generator.groups)}
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
        first = 0
        for split, count in self.counts.items():
            begin, end = max(start - first, 0), min(stop - first, count)
            first += count
            if begin >= end:
                continue
            for number in range(begin // BLOCK, -(-end // BLOCK)):
                block = self.block(split, number)
                rows = range(max(begin - number * BLOCK, 0), min(end - number * BLOCK, BLOCK))
                yield from self._structures(split, number, block, rows)

    def block(self, split: str, number: int) -> CloudBlock:
        """Samples `number * BLOCK` to `(number + 1) * BLOCK - 1` of a split as flat arrays.

        Blocks do not end where the split does: training may go on drawing for ever.
        """
        return self.generator.block(split, number)

    def _structures(self, split: str, number: int, block: CloudBlock, rows: range) -> Iterator[Structure]:
        # All samples share these; a write to one of them would be a write to all.
        cell, pbc = np.zeros((3, 3), dtype=np.float32), np.zeros(3, dtype=np.bool_)
        cell.flags.writeable = pbc.flags.writeable = False
        offset, groups = block.offset.tolist(), block.point_group.tolist()
        for row in rows:
            atoms = slice(offset[row], offset[row + 1])
            structure = Structure(
                id=f"{split}-{number * BLOCK + row:09d}",
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
