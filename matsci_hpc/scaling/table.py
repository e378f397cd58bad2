"""The table of measurements of a scaling study, and the series that it holds.

A row is one measurement. Its columns:

| column | means |
|---|---|
| `ranks` | MPI ranks, or whatever is counted: processes, GPUs |
| `throughput` | samples/s of all ranks together |
| `throughput_unit` | optional: what else it is in, such as GB/s; the same in all rows of a series |
| `time_s` | instead: seconds for the same work; with `throughput`, how long the job took |
| `samples` | optional, with `time_s`: samples that were worked on in that time |
| `nodes` | optional: nodes that were taken |
| `scaling` | optional: `strong` (the same work for any number of ranks) or `weak` (the same work for each rank) |
| `repeat` | optional: tells measurements of the same thing apart |
| `details.*` | optional: kept, and no label |
| any other | a label: rows with the same labels are one series |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError

Scaling = Literal["strong", "weak"]
Floats = NDArray[np.float64]
Labels = tuple[tuple[str, str], ...]

DETAILS = "details."
"""Begins the names of columns that are neither measured nor labels."""
SAMPLES_PER_S, WORK_PER_S = "samples/s", "work/s"
"""Units of a rate: the second is for times of work that is not counted in samples."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. It has a `throughput` in samples/s, or a `time_s`, or both."""

    ranks: int
    throughput: float | None = None
    time_s: float | None = None
    samples: float | None = None
    nodes: int | None = None
    scaling: Scaling | None = None
    throughput_unit: str | None = None
    repeat: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    line: int = 0
    """In the file that it was read from, 1 being the first; 0 if there is none."""

    @property
    def rate(self) -> float:
        """Work per second of all ranks together, in samples/s if samples are counted."""
        if self.throughput is not None:
            return self.throughput
        assert self.time_s is not None  # noqa: S101 - a row has one of them
        if self.samples is not None:
            return self.samples / self.time_s
        # The work of a weak study grows with the ranks.
        return (self.ranks if self.scaling == "weak" else 1) / self.time_s

    @property
    def unit(self) -> str:
        """Of the rate."""
        if self.throughput is not None:
            return self.throughput_unit or SAMPLES_PER_S
        return WORK_PER_S if self.samples is None else SAMPLES_PER_S


@dataclass(frozen=True)
class Series:
    """Measurements with the same labels, by rank count."""

    labels: Labels
    scaling: Scaling | None
    unit: str
    """Of the rates."""
    ranks: NDArray[np.int64]
    """[n], ascending."""
    rates: tuple[Floats, ...]
    """n arrays [repeats], work per second of all ranks together."""
    nodes: tuple[int | None, ...]
    """n counts."""
    times_s: tuple[Floats | None, ...]
    """n arrays [repeats], None where only throughput was measured."""
    common: frozenset[str] = frozenset()
    """Labels that all series of the table share."""

    @property
    def name(self) -> str:
        """The labels that tell it from other series, in one line."""
        parts = [f"{name}={value}" for name, value in self.labels if value and name not in self.common]
        parts += [f"{self.scaling} scaling"] if self.scaling else []
        return ", ".join(parts) or "all measurements"

    @property
    def means(self) -> Floats:
        """Mean rate at each rank count, [n]."""
        return np.array([rates.mean() for rates in self.rates])

    @property
    def repeats(self) -> tuple[int, ...]:
        """How often each rank count was measured, n counts."""
        return tuple(len(rates) for rates in self.rates)

    def part(self, chosen: NDArray[np.bool_]) -> "Series":
        """The rank counts that are chosen, [n] of bool."""
        places = np.flatnonzero(chosen)
        return Series(
            labels=self.labels,
            scaling=self.scaling,
            unit=self.unit,
            ranks=_frozen(self.ranks[places]),
            rates=tuple(self.rates[place] for place in places),
            nodes=tuple(self.nodes[place] for place in places),
            times_s=tuple(self.times_s[place] for place in places),
            common=self.common,
        )


@dataclass(frozen=True)
class Table:
    """Measurements and where they come from."""

    rows: tuple[Row, ...]
    origin: str
    """Named in errors: a path."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know, such as what was left out."""

    @property
    def common(self) -> dict[str, str]:
        """Labels of one value in all rows."""
        values = {name: {row.labels.get(name, "") for row in self.rows} for name in self.label_names}
        return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}

    @property
    def label_names(self) -> tuple[str, ...]:
        """In the order in which they first appear."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.labels))

    def series(self, *, lone: bool = False) -> tuple[Series, ...]:
        """The series, in the order in which their labels first appear.

        Args:
            lone: take series of one rank count each, too, from which no scaling follows.

        Raises:
            UserInputError: no series has two rank counts, or the rows of a series do not fit together.
        """
        groups: dict[tuple[Labels, Scaling | None], list[Row]] = {}
        names = self.label_names
        for row in self.rows:
            labels = tuple((name, row.labels.get(name, "")) for name in names)
            groups.setdefault((labels, row.scaling), []).append(row)
        made = tuple(self._series(labels, scaling, rows) for (labels, scaling), rows in groups.items())
        if not lone and all(len(each.ranks) < 2 for each in made):
            raise UserInputError(self._too_few(made))
        return made

    def _series(self, labels: Labels, scaling: Scaling | None, rows: list[Row]) -> Series:
        by_ranks: dict[int, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.ranks):
            by_ranks.setdefault(row.ranks, []).append(row)
        for same in by_ranks.values():
            self._check_alike(same)
        other = next((row for row in rows if row.unit != rows[0].unit), None)
        if other is not None and other.throughput is not None:
            raise UserInputError(
                f"{self.origin}: line {other.line}: column throughput: is in {other.unit}, and in {rows[0].unit} in "
                f"line {rows[0].line} of the same series: convert them to one unit"
            )
        if other is not None:
            raise UserInputError(
                f"{self.origin}: line {other.line}: column samples: is filled in some lines of a series and not in "
                f"line {other.line if other.samples is None else rows[0].line}: fill it in all of them or in none"
            )
        groups = list(by_ranks.values())
        return Series(
            labels=labels,
            scaling=scaling,
            unit=rows[0].unit,
            ranks=_frozen(np.array(list(by_ranks), dtype=np.int64)),
            rates=tuple(_frozen(np.array([row.rate for row in same])) for same in groups),
            nodes=tuple(same[0].nodes for same in groups),
            times_s=tuple(_times(same) for same in groups),
            common=frozenset(self.common),
        )

    def _check_alike(self, rows: list[Row]) -> None:
        """Measurements of one rank count must be repeats of one thing."""
        first = rows[0]
        seen: dict[object, Row] = {}
        for row in rows:
            if row.nodes != first.nodes:
                raise UserInputError(
                    f"{self.origin}: line {row.line}: column nodes: {row.ranks} ranks on {row.nodes} nodes, and on "
                    f"{first.nodes} in line {first.line}: add a column that tells the two layouts apart"
                )
            # Without a column `repeat`, two measured numbers that are equal to the last digit are one row twice.
            same = seen.setdefault(row.repeat if row.repeat is not None else (row.throughput, row.time_s), row)
            if same is not row:
                what = f"repeat {row.repeat}" if row.repeat is not None else "the same measurement"
                raise UserInputError(
                    f"{self.origin}: line {row.line}: column repeat: {what} of {row.ranks} ranks is already in line "
                    f"{same.line}: remove one of them, or number them in a column `repeat`"
                )

    def _too_few(self, made: tuple[Series, ...]) -> str:
        first = self.rows[0]
        advice = "measure at least one more"
        if len({row.ranks for row in self.rows}) > 1:  # then it is the labels that take the rows apart
            varying = [name for name in self.label_names if len({row.labels.get(name) for row in self.rows}) > 1]
            advice = (
                f"the columns {', '.join(varying)} make each of them a series of its own: name the columns that are "
                f"labels by --labels, or begin the names of the others with `{DETAILS}`"
            )
        return f"{self.origin}: line {first.line}: column ranks: {made[0].name}: one rank count only; {advice}"


def _times(rows: Iterable[Row]) -> Floats | None:
    times = [row.time_s for row in rows if row.time_s is not None]
    return _frozen(np.array(times)) if times else None


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
