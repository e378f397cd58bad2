"""Exact statistics of a data set by merging those of its shards, in the order of the shards.

Means and sums of squared deviations merge by Chan, Golub and LeVeque (1979), which loses no digits to the size of the
mean. The order is that of the shards, so the result is the same to the last bit for any number of ranks.

Of a vector, a tensor or a target of every atom, the moments are those of all its numbers together (every component,
every atom), and the count is that of the samples that carry it.
"""

import math
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from matsci_hpc.shards.layout import Array, ShardContent, deciding, edge_counts, is_present, target_path
from matsci_hpc.targets import TargetSpec


class TargetStatistics(BaseModel):
    """Count and moments of a numerical column, or counts by class of a categorical one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = 0
    """Samples that carry the target."""
    numbers: int | None = None
    """Numbers that the moments are of; None for targets of one number a sample, where it is the count."""
    mean: float | None = None
    squared_deviations: float | None = None
    """Sum of (value - mean)^2."""
    min: float | None = None
    max: float | None = None
    class_counts: list[int] | None = None
    """Samples per class, or per label of a multilabel target."""

    @property
    def std(self) -> float | None:
        """Standard deviation of the population."""
        if self.squared_deviations is None or self.count == 0:
            return None
        return math.sqrt(self.squared_deviations / self.weight)

    @property
    def weight(self) -> int:
        """Numbers that the moments are of."""
        return self.count if self.numbers is None else self.numbers

    @classmethod
    def of_numbers(cls, values: Array) -> Self:
        """Statistics of finite numbers."""
        if len(values) == 0:
            return cls()
        numbers = values.astype(np.float64)
        mean = float(numbers.mean())
        return cls(
            count=len(numbers),
            mean=mean,
            squared_deviations=float(((numbers - mean) ** 2).sum()),
            min=float(numbers.min()),
            max=float(numbers.max()),
        )

    @classmethod
    def of_tensors(cls, values: Array, samples: int) -> Self:
        """Statistics of all numbers of vectors or tensors, which belong to so many samples."""
        return cls.of_numbers(values.reshape(-1)).model_copy(update={"count": samples, "numbers": values.size})

    @classmethod
    def of_column(cls, values: Array, spec: TargetSpec) -> Self:
        """Statistics of a stored target column, absent values left out."""
        known = values[is_present(values, spec)]
        if spec.kind == "class":
            counts = np.bincount(known.astype(np.int64), minlength=len(spec.classes or ()))
            return cls(count=len(known), class_counts=counts.tolist())
        if spec.kind == "multilabel":
            return cls(count=len(known), class_counts=known.astype(np.int64).sum(axis=0).tolist())
        return cls.of_tensors(known, len(known)) if spec.shape else cls.of_numbers(known)

    @classmethod
    def of_atoms(cls, values: Array, spec: TargetSpec, atoms: NDArray[np.int64]) -> Self:
        """Statistics of a stored target of every atom, absent values left out.

        Args:
            values: of the atoms of some samples, float [atoms, *shape].
            spec: of the target.
            atoms: int64 [n], number of atoms of each of the samples.
        """
        if len(atoms) == 0:
            return cls.of_tensors(values, 0)
        present = is_present(deciding(values, spec, np.cumsum(atoms) - atoms), spec)
        return cls.of_tensors(values[np.repeat(present, atoms)], int(present.sum()))

    def merged(self, other: Self) -> Self:
        """Statistics of both sets together."""
        if self.class_counts is not None and other.class_counts is not None:
            pairs = zip(self.class_counts, other.class_counts, strict=True)
            return type(self)(count=self.count + other.count, class_counts=[a + b for a, b in pairs])
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        weight = self.weight + other.weight
        delta = _known(other.mean) - _known(self.mean)
        return type(self)(
            count=self.count + other.count,
            numbers=None if self.numbers is None else weight,
            mean=_known(self.mean) + delta * other.weight / weight,
            squared_deviations=_known(self.squared_deviations)
            + _known(other.squared_deviations)
            + delta**2 * self.weight * other.weight / weight,
            min=min(_known(self.min), _known(other.min)),
            max=max(_known(self.max), _known(other.max)),
        )


SplitStatistics = dict[str, dict[str, TargetStatistics]]


def shard_statistics(content: ShardContent, targets: dict[str, TargetSpec], splits: list[str]) -> SplitStatistics:
    """Statistics of one shard by split, then by target; `atoms` and `edges` per sample are among them."""
    split_of = content.arrays["structures/split"]
    atoms = np.diff(content.arrays["offsets/atoms"]).astype(np.int64)
    columns = {name: (content.arrays[target_path(name, spec)], spec) for name, spec in targets.items()}
    result: SplitStatistics = {}
    for number, split in enumerate(splits):
        chosen = split_of == number
        result[split] = {
            "atoms": TargetStatistics.of_numbers(atoms[chosen]),
            "edges": TargetStatistics.of_numbers(edge_counts(content.arrays)[chosen]),
        } | {
            name: TargetStatistics.of_atoms(column[np.repeat(chosen, atoms)], spec, atoms[chosen])
            if spec.per_atom
            else TargetStatistics.of_column(column[chosen], spec)
            for name, (column, spec) in columns.items()
        }
    return result


class Merger:
    """Merges the statistics of shards, given in their order, as a balanced tree.

    Each merge rounds. One after the other, thousands of shards would let that add up until a spread that is small
    beside the mean is lost in it; in a tree a value goes through a dozen merges at most.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, SplitStatistics]] = []

    def add(self, part: SplitStatistics) -> None:
        """Take the next shard."""
        shards = 1
        while self._waiting and self._waiting[-1][0] == shards:
            part = _both(self._waiting.pop()[1], part)
            shards *= 2
        self._waiting.append((shards, part))

    def result(self) -> SplitStatistics:
        """Statistics of all shards so far."""
        merged: SplitStatistics = {}
        for _, part in reversed(self._waiting):
            merged = _both(part, merged)
        return merged


def merge_statistics(parts: Iterable[SplitStatistics]) -> SplitStatistics:
    """Statistics of all shards, given in their order."""
    merger = Merger()
    for part in parts:
        merger.add(part)
    return merger.result()


def _both(first: SplitStatistics, second: SplitStatistics) -> SplitStatistics:
    if not second:
        return first
    return {
        split: {name: each.merged(second[split][name]) for name, each in columns.items()}
        for split, columns in first.items()
    }


def _known(value: float | None) -> float:
    if value is None:  # only empty statistics lack moments, and they never get here
        raise AssertionError("moments of an empty column")
    return value
