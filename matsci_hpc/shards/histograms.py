"""How sizes and targets of a finished data set are distributed: from its index and stored columns, in one pass."""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.shards.layout import Array, is_present
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec

WIDE = 1e3
"""Sizes whose largest is so many times the smallest get bins of equal ratio instead of equal width."""


@dataclass(slots=True)
class Histogram:
    """Counts of one quantity.

    Attributes:
        name: `atoms`, `edges` or a target.
        unit: of the values, or None.
        edges: float64 [bins + 1]; a bin holds its lower end, the last one the upper too; empty for classes.
        classes: their names, one to a bin; empty for numbers.
        whole: the values are whole numbers.
        counts: int64 [splits, bins].
    """

    name: str
    unit: str | None
    edges: NDArray[np.float64]
    classes: tuple[str, ...] = ()
    whole: bool = False
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))

    def bins(self) -> list[str]:
        """What each bin is called, such as `1 to 4`, `0.5 to 1` or the name of a class."""
        if self.classes:
            return list(self.classes)
        if self.whole:
            ends = [(round(a), round(b) - 1) for a, b in pairwise(self.edges)]
            return [f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in ends]
        digits = _digits(self.edges)
        return [f"{a:.{digits}g} to {b:.{digits}g}" for a, b in pairwise(self.edges.tolist())]


def histograms(data: DataSet, bins: int) -> list[Histogram]:
    """Histograms of atoms, edges and every target with one value for a sample.

    Args:
        data: a finished data set.
        bins: about so many for numbers; classes have one each.

    Raises:
        MachineError: a shard is missing or damaged.
    """
    splits = len(data.manifest.splits)
    made = {name: _empty(name, None, _whole_statistics(data, name), splits, bins) for name in ("atoms", "edges")}
    for name, sizes in (("atoms", data.index.atoms), ("edges", data.index.edges)):
        for start in range(0, len(sizes), 1 << 20):
            piece = slice(start, start + (1 << 20))
            _add(made[name], sizes[piece], data.index.split[piece])
    targets = _single_valued(data)
    for name, spec in targets.items():
        made[name] = _empty(name, spec, _whole_statistics(data, name), splits, bins)
    for number in range(len(data.manifest.shards) if targets else 0):
        arrays = data.shard(number)
        for name, spec in targets.items():
            column = arrays[f"targets/{name}"]
            known = is_present(column, spec)
            _add(made[name], column[known], arrays["structures/split"][known])
    return list(made.values())


def _single_valued(data: DataSet) -> dict[str, TargetSpec]:
    arrays = data.shard(0)
    return {
        name: spec
        for name, spec in data.manifest.targets.items()
        if f"targets/{name}" in arrays and (arrays[f"targets/{name}"].ndim == 1 or spec.kind == "multilabel")
    }


def _whole_statistics(data: DataSet, name: str) -> TargetStatistics:
    """Of all splits together."""
    parts = [split[name] for split in data.manifest.statistics.values() if split[name].count]
    merged = parts[0] if parts else TargetStatistics()
    for part in parts[1:]:
        merged = merged.merged(part)
    return merged


def _empty(name: str, spec: TargetSpec | None, statistics: TargetStatistics, splits: int, bins: int) -> Histogram:
    if spec is not None and spec.kind != "regression":
        classes = ("0", "1") if spec.kind == "binary" else spec.classes or ()
        edges = np.zeros(0)
    else:
        classes = ()
        low, high = statistics.min or 0.0, statistics.max or 0.0
        edges = _size_edges(low, high, bins) if spec is None else _number_edges(low, high, bins)
    counts = np.zeros((splits, len(classes) or len(edges) - 1), dtype=np.int64)
    return Histogram(name, spec.unit if spec else None, edges, classes, spec is None, counts)


def _size_edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Borders between whole numbers."""
    if high > WIDE * max(low, 1.0):
        steps = np.geomspace(max(low, 1.0), high + 1, bins + 1)
        steps[0] = low
        return np.unique(np.round(steps).astype(np.float64))
    width = max(1, math.ceil((high - low + 1) / bins))
    return np.arange(math.ceil((high - low + 1) / width) + 1, dtype=np.float64) * width + low


def _number_edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Borders at multiples of 1, 2, 2.5 or 5 times a power of ten, as people count."""
    if not high > low:
        return np.array([low, low])
    rough = (high - low) / bins
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / width), math.ceil(high / width)
    if not (0 < last - first <= 2 * bins + 2) or low + width == low:
        return np.linspace(
            low, high, bins + 1, dtype=np.float64
        )  # the spread is no more than rounding beside the size of the numbers
    return np.arange(first, last + 1, dtype=np.float64) * width


def _digits(edges: NDArray[np.float64]) -> int:
    """Fewest digits that tell the borders apart and show them as they are."""
    for digits in range(3, 17):
        shown = [float(f"{each:.{digits}g}") for each in edges]
        scale = np.diff(edges).min(initial=np.inf)
        if np.abs(np.array(shown) - edges).max() <= 1e-3 * (scale if np.isfinite(scale) else 1.0):
            return digits
    return 17


def _add(histogram: Histogram, values: Array, split: Array) -> None:
    """Count values.

    Args:
        histogram: to add to.
        values: [n] numbers or classes, or [n, labels] of a multilabel target.
        split: uint8 [n].
    """
    splits, bins = histogram.counts.shape
    if values.ndim == 2:
        for number in np.unique(split).tolist():
            histogram.counts[number] += values[split == number].sum(axis=0, dtype=np.int64)
        return
    if histogram.classes:
        place = values.astype(np.int64)
    else:
        found = np.searchsorted(histogram.edges, values.astype(np.float64), side="right") - 1
        place = np.clip(found, 0, bins - 1)
    flat = np.bincount(split.astype(np.int64) * bins + place, minlength=splits * bins)
    histogram.counts += flat.reshape(splits, bins)
