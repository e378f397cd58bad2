"""The splits of a data set without files: how many atoms each sample has, before it is made."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.generated import MAX_SAMPLES
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.sources.cloud_generator import BLOCK, CloudGenerator

Numbers = NDArray[np.int64]

SIZES_KEPT = 256
"""Blocks of an endless split whose sizes are kept."""
ATOM_BYTES = 3 * 4 + 1
"""Of a position in single precision and an atomic number."""
COUNTED = 1 << 16
"""Samples of an endless split that its statistics are taken from."""


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of a split; `first` counts through all splits before it."""

    number: int
    name: str
    count: int
    first: int

    @property
    def endless(self) -> bool:
        """Whether it has no end."""
        return self.count == MAX_SAMPLES


class SplitSizes:
    """Atoms of the samples of a split, and its classes. A split with an end takes a byte a sample."""

    def __init__(self, generator: CloudGenerator, split: Split) -> None:
        self.split = split
        self._generator = generator
        counted = min(split.count, COUNTED) if split.endless else split.count
        blocks = -(-counted // BLOCK)
        known = np.empty(counted, dtype=np.uint8)
        self._groups = np.zeros(len(generator.groups), dtype=np.int64)
        for number in range(blocks):
            atoms, group = generator.sizes(split.name, number)
            rows = slice(number * BLOCK, min((number + 1) * BLOCK, counted))
            known[rows] = atoms[: rows.stop - rows.start]
            self._groups += np.bincount(group[: rows.stop - rows.start], minlength=len(self._groups))
        self._known = known
        self._kept: dict[int, NDArray[np.uint8]] = {}

    @property
    def sample_bytes(self) -> float:
        """What a sample takes on average, once drawn."""
        return float(self._known.mean()) * ATOM_BYTES

    @property
    def totals(self) -> tuple[int, int]:
        """Atoms and edges of all samples; of an endless split, of those that were counted."""
        counts = np.bincount(self._known, minlength=1).tolist()
        return sum(n * k for n, k in enumerate(counts)), sum(n * (n - 1) * k for n, k in enumerate(counts))

    def atoms(self, positions: Numbers) -> Numbers:
        """Atoms of the samples at some positions in the split: int64 [n]."""
        if not self.split.endless:
            return self._known[positions].astype(np.int64)
        atoms = np.empty(len(positions), dtype=np.int64)
        block, row = np.divmod(positions, BLOCK)
        for number in np.unique(block).tolist():
            mine = block == number
            atoms[mine] = self._of_block(number)[row[mine]]
        return atoms

    def statistics(self, contains: NDArray[np.uint8] | None) -> dict[str, TargetStatistics]:
        """As a manifest holds them; numbers by class are of those that were counted."""
        sizes = self._known.astype(np.int64)
        found = {
            "atoms": TargetStatistics.of_numbers(sizes),
            "edges": TargetStatistics.of_numbers(sizes * (sizes - 1)),
            "point_group": TargetStatistics(count=self.split.count, class_counts=self._groups.tolist()),
        }
        if contains is not None:
            counts = (self._groups @ contains.astype(np.int64)).tolist()
            found["subgroups"] = TargetStatistics(count=self.split.count, class_counts=counts)
        return found

    def _of_block(self, number: int) -> NDArray[np.uint8]:
        sizes = self._kept.pop(number, None)
        if sizes is None:
            sizes = self._generator.sizes(self.split.name, number)[0].astype(np.uint8)
        self._kept[number] = sizes
        for oldest in list(self._kept)[:-SIZES_KEPT]:
            self._kept.pop(oldest, None)
        return sizes


def splits_of(counts: dict[str, int]) -> Iterator[Split]:
    """The splits of a source, from the number of samples in each."""
    first = 0
    for number, (name, count) in enumerate(counts.items()):
        yield Split(number, name, count, first)
        first += count
