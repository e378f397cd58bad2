"""Several data sets as one numbered sequence of samples, known from their indexes alone.

Nothing here grows with the number of samples: columns are looked up in the mapped indexes when asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.generated import GeneratedData
from matsci_hpc.loading.same_samples import same_samples
from matsci_hpc.loading.subset import statistics_of
from matsci_hpc.shards.layout import Array
from matsci_hpc.shards.reader import DataSet, Place, ShardPool
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ShardPart:
    """Those of some samples that lie in one shard.

    Attributes:
        dataset: number of the data set.
        shard: number of the shard in its manifest.
        rows: int64 [n], places in the shard.
        start: place of the first one among the samples asked for; the others follow it.
    """

    dataset: int
    shard: int
    rows: Numbers
    start: int


class Collection:
    """The samples of several data sets, numbered one data set after the other.

    Args:
        data: folders of the data sets, and those that lie in none.
        places: where the shards of each folder are read, if not there.

    Attributes:
        datasets: the data sets.
        targets: every target of any of them.
        cutoff: angstrom, the same in all.
        offsets: int64 [D + 1], first sample of each data set.
    """

    def __init__(self, data: Sequence[Path | GeneratedData], places: Sequence[Place] | None = None) -> None:
        pool = ShardPool()
        folders = [each for each in data if isinstance(each, Path)]
        read_at = iter(zip(folders, places or folders, strict=True))
        self.datasets: list[DataSet | GeneratedData] = [
            each if isinstance(each, GeneratedData) else DataSet(each, pool, next(read_at)[1]) for each in data
        ]
        _refuse_twice(self.datasets)
        self.targets = _same_targets(self.datasets)
        self.cutoff = _same_cutoff(self.datasets)
        self.offsets = np.cumsum([0, *(len(each.index) for each in self.datasets)], dtype=np.int64)
        self._parts_of_split: dict[str, list[Numbers]] = {}

    def restrict(self, split: str, positions: list[Numbers]) -> None:
        """Leave only a part of a split, as if the others were not there.

        Args:
            split: name of the split.
            positions: for each data set, int64 places among its samples of the split, ascending.
        """
        self._parts_of_split[split] = positions

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def shared_by(self, ranks: int) -> None:
        """Say how many ranks take samples, each of them its own share. It changes what takes how long, nothing else."""
        for each in self.datasets:
            if isinstance(each, GeneratedData):
                each.shared_by(ranks)

    def atoms(self, samples: Numbers) -> Numbers:
        """Atoms of each sample: int64 [n]."""
        return self._column(samples, lambda index, numbers: index.atoms[numbers])

    def edges(self, samples: Numbers) -> Numbers:
        """Edges of each sample: int64 [n]."""
        return self._column(samples, lambda index, numbers: index.edges[numbers])

    def present(self, name: str, samples: Numbers) -> NDArray[np.bool_]:
        """Which samples carry a target: bool [n]."""
        found = np.zeros(len(samples), dtype=bool)
        for dataset, chosen in self._by_dataset(samples):
            names = list(self.datasets[dataset].manifest.targets)
            if name in names:
                bits = self.datasets[dataset].index.present[samples[chosen] - self.offsets[dataset]]
                found[chosen] = (bits.astype(np.uint64) >> np.uint64(names.index(name))) & np.uint64(1)
        return found

    def carriers(self, samples: Numbers) -> dict[str, int]:
        """How many of some samples carry each target; of a target of every atom, how many atoms do."""
        present = {name: self.present(name, samples) for name in self.targets}
        of_atoms = any(spec.per_atom for spec in self.targets.values())
        atoms = self.atoms(samples) if of_atoms else np.empty(0, dtype=np.int64)
        return {
            name: int(atoms[present[name]].sum() if spec.per_atom else present[name].sum())
            for name, spec in self.targets.items()
        }

    def split_counts(self, split: str) -> Numbers:
        """Samples of a split in each data set: int64 [D].

        Raises:
            UserInputError: no data set has a sample in it.
        """
        if (part := self._parts_of_split.get(split)) is not None:
            return np.array([len(each) for each in part], dtype=np.int64)
        counts = np.array([each.manifest.splits.get(split, 0) for each in self.datasets], dtype=np.int64)
        if not counts.any():
            known = sorted({name for each in self.datasets for name, count in each.manifest.splits.items() if count})
            raise UserInputError(f"no sample in split {split!r}; the data sets have {', '.join(known)}")
        return counts

    def select(self, split: str, dataset: int, positions: Numbers) -> Numbers:
        """Numbers of some samples of one split of one data set.

        Args:
            split: name of the split.
            dataset: number of the data set.
            positions: int64 [n], places among the samples of the split in ascending order, from 0.
        """
        if (part := self._parts_of_split.get(split)) is not None:
            positions = part[dataset][positions]
        chosen = self.datasets[dataset]
        before = 0
        for name, count in chosen.manifest.splits.items():
            if name == split:
                break
            before += count
        numbers: Numbers = chosen.index.by_split[before + positions].astype(np.int64) + self.offsets[dataset]
        return numbers

    def in_split(self, split: str, most: int | None = None) -> Numbers:
        """Numbers of all samples of a split, ascending, or of the first few of each data set.

        Raises:
            UserInputError: no data set has a sample in it.
        """
        counts = [count if most is None else min(count, most) for count in self.split_counts(split).tolist()]
        return np.concatenate([self.select(split, d, np.arange(count)) for d, count in enumerate(counts) if count])

    def parts(self, samples: Numbers) -> Iterator[ShardPart]:
        """The shards that some samples lie in, one after the other.

        Args:
            samples: int64 [n], in non-descending order.
        """
        for dataset, chosen in self._by_dataset(samples):
            index = self.datasets[dataset].index
            numbers = samples[chosen] - self.offsets[dataset]
            shards, rows = index.shard[numbers], index.row[numbers].astype(np.int64)
            borders = [0, *(np.flatnonzero(shards[1:] != shards[:-1]) + 1).tolist(), len(numbers)]
            for start, stop in pairwise(borders):
                yield ShardPart(dataset, int(shards[start]), rows[start:stop], chosen.start + start)

    def sample_name(self, sample: int) -> str:
        """Where a sample lies and what it is called, for messages: `FOLDER/shard-00000.h5 row 17 (ID)`."""
        dataset = int(np.searchsorted(self.offsets, sample, side="right")) - 1
        return self.datasets[dataset].sample_name(sample - int(self.offsets[dataset]))

    def statistics(self, split: str, target: str) -> TargetStatistics:
        """Exact statistics of a target over one split of all data sets, or over the part of it that is left."""
        if split in self._parts_of_split:
            return statistics_of(self, self.in_split(split), target)
        merged = TargetStatistics()
        for each in self.datasets:
            part = each.manifest.statistics.get(split, {}).get(target)
            if part is not None and part.count:
                merged = merged.merged(part) if merged.count else part
        return merged

    def _column(self, samples: Numbers, look_up: Callable[[Any, Numbers], Array]) -> Numbers:
        """A column of the indexes at some samples, as int64 [n]."""
        values = np.empty(len(samples), dtype=np.int64)
        for dataset, chosen in self._by_dataset(samples):
            values[chosen] = look_up(self.datasets[dataset].index, samples[chosen] - self.offsets[dataset])
        return values

    def _by_dataset(self, samples: Numbers) -> Iterator[tuple[int, Any]]:
        """Data sets and the places in `samples` that belong to each: a slice if these ascend, as they mostly do."""
        if len(samples) == 0:
            return
        if len(self.datasets) == 1:
            yield 0, slice(0, len(samples))
            return
        dataset = np.searchsorted(self.offsets, samples, side="right") - 1
        order = None if (dataset[1:] >= dataset[:-1]).all() else np.argsort(dataset, kind="stable")
        ordered = dataset if order is None else dataset[order]
        borders = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(samples)]
        for start, stop in pairwise(borders):
            yield int(ordered[start]), slice(start, stop) if order is None else order[start:stop]


def _refuse_twice(datasets: list[DataSet | GeneratedData]) -> None:
    """Each sample counts once per epoch, so no data set may be there twice, under whatever path."""
    for found in same_samples((each.name, each.manifest) for each in datasets):
        if found.refused:
            raise UserInputError(f"data.train: {found.text}; {found.advice}")


def _same_targets(datasets: list[DataSet | GeneratedData]) -> dict[str, TargetSpec]:
    targets: dict[str, TargetSpec] = {}
    for each in datasets:
        for name, spec in each.manifest.targets.items():
            if targets.setdefault(name, spec) != spec:
                raise UserInputError(
                    f"{each.name}: target {name} has another kind, unit or classes than in the data sets before it"
                )
    return targets


def _same_cutoff(datasets: list[DataSet | GeneratedData]) -> float:
    cutoffs = {each.manifest.neighbors.cutoff_angstrom for each in datasets}
    if len(cutoffs) > 1:
        shown = ", ".join(f"{each.name} {each.manifest.neighbors.cutoff_angstrom:g}" for each in datasets)
        raise UserInputError(f"the data sets were made with different cutoffs, in angstrom: {shown}")
    return cutoffs.pop()
