"""By what the points of a map are coloured: their data set, a class, or a number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.analysis.map_data import Points
from matsci_hpc.analysis.separation import DATA_SET

COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#5B4B8A")
"""Okabe and Ito's palette without its yellow, which is lost on white, and a dark violet."""
MARKS = ("circle", "square", "triangle", "diamond")
"""The second round of colours has another mark, and so on, so that no two classes look the same."""
MOST_LOOKS = len(COLORS) * len(MARKS)
OTHER, ABSENT = "#8A8F94", "#D9DCDF"
RAMP = ("#00204D", "#31446B", "#666970", "#958F78", "#CBBA69")
"""Cividis (Nunez, Anderton and Renslow 2018, doi 10.1371/journal.pone.0199239) without its end, pale on white."""


@dataclass(frozen=True, slots=True)
class ClassColoring:
    """Classes, the most frequent ones first.

    Attributes:
        title: what it is.
        names: of the classes that have a look of their own.
        counts: samples of each, in the map that has most of all.
        others: classes that share one look, and their samples.
        numbers: for each map int64 [n]: place in `names`, `len(names)` for others, -1 where it is not known.
    """

    title: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    others: tuple[int, int]
    numbers: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class NumberColoring:
    """A numeric target.

    Attributes:
        title: its name and unit.
        low, high: ends of the scale: the 2nd and 98th percentile, so that no single sample takes it all.
        values: for each map float64 [n], NaN where it is not known.
    """

    title: str
    low: float
    high: float
    values: tuple[NDArray[np.float64], ...]


Coloring = ClassColoring | NumberColoring


def colorings(maps: Sequence[Points]) -> list[Coloring]:
    """All that the points of some maps can be coloured by: data sets first, then classes, then numbers."""
    data_sets = list(dict.fromkeys(name for points in maps for name in points.data_sets))
    own = [np.array([data_sets.index(name) for name in points.data_sets])[points.data_set] for points in maps]
    classes: list[Coloring] = [_by_class(DATA_SET, tuple(data_sets), own)]
    numbers: list[Coloring] = []
    for name in dict.fromkeys(name for points in maps for name in points.targets):
        kinds = {points.targets[name].spec.model_dump_json() for points in maps if name in points.targets}
        first = next(points.targets[name] for points in maps if name in points.targets)
        known = [name in points.targets and len(kinds) == 1 for points in maps]
        if first.is_class:
            labels = [
                points.targets[name].labels() if there else np.full(len(points), -1)
                for points, there in zip(maps, known, strict=True)
            ]
            if any((each >= 0).any() for each in labels):
                classes.append(_by_class(name, first.names, labels))
        else:
            values = [
                points.targets[name].values.astype(np.float64) if there else np.full(len(points), np.nan)
                for points, there in zip(maps, known, strict=True)
            ]
            finite = np.concatenate([each[np.isfinite(each)] for each in values])
            if len(finite):
                low, high = np.percentile(finite, (2, 98)).tolist()
                unit = f" / {first.spec.unit}" if first.spec.unit else ""
                numbers.append(NumberColoring(f"{name}{unit}", low, high if high > low else low + 1.0, tuple(values)))
    return classes + numbers


def _by_class(title: str, names: tuple[str, ...], labels: Sequence[NDArray[np.int64]]) -> ClassColoring:
    counts = np.bincount(np.concatenate([each[each >= 0] for each in labels]), minlength=len(names))
    order = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number]]
    if title == DATA_SET:
        order = sorted(order)  # as they were named
    shown, rest = order[:MOST_LOOKS], order[MOST_LOOKS:]
    most = max((each for each in labels), key=lambda each: int((each >= 0).sum()))
    counts = np.bincount(most[most >= 0], minlength=len(names))
    place = np.full(len(names) + 1, -1, dtype=np.int64)  # the last one is that of label -1
    place[shown] = np.arange(len(shown))
    place[rest] = len(shown)
    return ClassColoring(
        title,
        tuple(names[number] for number in shown),
        tuple(int(counts[number]) for number in shown),
        (len(rest), int(counts[rest].sum())),
        tuple(place[each] for each in labels),
    )
