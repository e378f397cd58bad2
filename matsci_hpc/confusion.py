"""Which classes are taken for which: counts of samples by true class and by the class that they were named.

Plain Python, since reports read it without loading numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

MOST_COUNTED = 512
"""Classes of a target whose confusion is counted; the counts of more would be more than 2 MB on every rank."""
MOST_RECORDED = 160
"""Classes of a target whose confusion is in every line of evaluations.jsonl, up to 80 kB of it: enough for every point
group that symmetry clouds can have."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of samples.

    Attributes:
        classes: their names.
        counts: [true class][named class], each in the order of `classes`.
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """What `to_json` gave; None where it is missing or damaged."""
        if not isinstance(value, dict):
            return None
        classes, counts = value.get("classes"), value.get("counts")
        if not isinstance(classes, list) or not isinstance(counts, list) or len(counts) != len(classes):
            return None
        for row in counts:
            if not isinstance(row, list) or len(row) != len(classes):
                return None
            if any(type(count) is not int or count < 0 for count in row):
                return None
        return cls(tuple(map(str, classes)), tuple(map(tuple, counts)))

    def to_json(self) -> dict[str, Any]:
        """As records hold it."""
        return {"classes": list(self.classes), "counts": [list(row) for row in self.counts]}

    @property
    def samples(self) -> tuple[int, ...]:
        """Of each true class."""
        return tuple(map(sum, self.counts))

    @property
    def right(self) -> tuple[int, ...]:
        """Samples of each true class that were named right."""
        return tuple(row[number] for number, row in enumerate(self.counts))

    @property
    def shares(self) -> tuple[tuple[float | None, ...], ...]:
        """The counts over the samples of their true class; None for a class without samples."""
        rows = zip(self.counts, self.samples, strict=True)
        return tuple(tuple(count / total if total else None for count in row) for row, total in rows)

    def folded(self, groups: Sequence[str], order: Sequence[str]) -> Self:
        """Groups of classes in the place of classes: what is taken for another class of its group is right.

        Args:
            groups: of each class, in the order of `classes`.
            order: of the groups; those that have no class are left out.
        """
        names = tuple(name for name in order if name in set(groups))
        place = {name: number for number, name in enumerate(names)}
        folded = [[0] * len(names) for _ in names]
        for true, row in zip(groups, self.counts, strict=True):
            for named, count in zip(groups, row, strict=True):
                folded[place[true]][place[named]] += count
        return type(self)(names, tuple(map(tuple, folded)))


def recorded(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a line of evaluations.jsonl holds of the confusion of each target, so that the file stays small.

    Args:
        found: as of `Confusion.to_json`, by target.
    """
    return {name: each for name, each in found.items() if len(each["classes"]) <= MOST_RECORDED}
