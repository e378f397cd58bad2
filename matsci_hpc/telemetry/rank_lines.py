"""The lines of ranks.jsonl: what each rank did and how long it took, over as many steps as the bound on the file needs.

A line a step of 512 ranks over 100,000 steps would be 5 GB. Sums over the steps of a line lose little: a rank that is
slow for a while shows in them, and a single slow step is in the stragglers of metrics.jsonl. So the number of intervals
that share a line follows from the planned steps, the ranks and the bound, and is known when the run begins. Lines end
at fixed steps, the same in every life, so that a later life replaces what it takes back. A rollback does so within a
life: the line that it cuts is written again from its beginning, with the intervals up to the checkpoint.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from matsci_hpc.telemetry.clock import PHASES
from matsci_hpc.telemetry.interval import COLUMNS, Interval, Values

BYTES_PER_RANK = 150
"""Of a line, about what each rank takes at most."""


def intervals_per_line(steps: int, log_every: int, ranks: int, megabytes: float) -> int:
    """Intervals that share a line, so that the lines of the whole run fit into so many megabytes.

    Args:
        steps: of the whole run.
        log_every: steps of an interval.
        ranks: their number.
        megabytes: of the file, greater than 0.
    """
    every = math.ceil(steps / log_every) * ranks * BYTES_PER_RANK
    return max(1, math.ceil(every / (1e6 * megabytes)))


@dataclass(frozen=True, slots=True)
class _Part:
    """An interval by the step that it ends with, and the predicted cost of each rank."""

    step: int
    interval: Interval
    cost: Values

    @property
    def first_step(self) -> int:
        return self.step - self.interval.steps + 1


class RankLines:
    """Adds up intervals to lines.

    Args:
        per_line: intervals of a line.
        log_every: steps of an interval.
        life: of the run.
        rollbacks: of the run so far.
    """

    def __init__(self, per_line: int, log_every: int, life: int, rollbacks: int = 0) -> None:
        self._span = per_line * log_every
        self._life = life
        self._rollbacks = rollbacks
        self._parts: list[_Part] = []
        self._before: list[_Part] = []  # of the line written last: a rollback may lead into it

    def add(self, step: int, interval: Interval, cost: Values) -> dict[str, Any] | None:
        """Add an interval; the line, if it is full.

        Args:
            step: the last one of the interval.
            interval: of all ranks.
            cost: float64 [ranks], predicted time of their work.
        """
        self._parts.append(_Part(step, interval, cost))
        return self.end() if step % self._span == 0 else None

    def go_back(self, step: int, rollbacks: int) -> None:
        """The run has gone back to an earlier step: what it did beyond it is taken back.

        Args:
            step: of the checkpoint.
            rollbacks: of the run so far.
        """
        line = step // self._span  # number of the line that the next step, from 1, belongs to
        kept = [part for part in [*self._before, *self._parts] if part.step <= step]
        self._before, self._parts = (
            [part for part in kept if (part.step - 1) // self._span == number] for number in (line - 1, line)
        )
        self._rollbacks = rollbacks

    def end(self) -> dict[str, Any] | None:
        """The line that has been begun, if one has."""
        if not self._parts:
            return None
        steps = sum(part.interval.steps for part in self._parts)
        table, cost = self._parts[0].interval.table, self._parts[0].cost
        for part in self._parts[1:]:
            table, cost = _joined(table, part.interval.table), cost + part.cost
        columns = dict(zip(COLUMNS, table.T, strict=True))
        line: dict[str, Any] = {
            "step": self._parts[-1].step,
            "first_step": self._parts[0].first_step,
            "life": self._life,
            "rollbacks": self._rollbacks,
            "steps": steps,
            **{f"{phase}_time_s": _short(columns[phase] / steps) for phase in PHASES},
            "step_time_s": _short(columns["total"] / steps),
            **{what: _whole(columns[what]) for what in ("graphs", "atoms", "edges")},
            "predicted_cost": _short(cost / steps),
            "memory_bytes": _whole(columns["memory_bytes"]),
        }
        if columns["device_memory_bytes"].any():
            line["device_memory_bytes"] = _whole(columns["device_memory_bytes"])
        for energy in ("cpu_energy_j", "gpu_energy_j"):
            if np.isfinite(columns[energy]).any():
                line[energy] = _short(columns[energy])
        self._parts, self._before = [], self._parts
        return line


def _joined(table: Values, more: Values) -> Values:
    """Sums, and the larger one of what is a peak; energy is unknown where either is."""
    joined = table + more
    for peak in ("memory_bytes", "device_memory_bytes"):
        place = COLUMNS.index(peak)
        joined[:, place] = np.maximum(table[:, place], more[:, place])
    return joined


def _short(values: Values) -> list[float | None]:
    """Four significant digits: the clock is no better, and the file is half as large."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values.tolist()]


def _whole(values: Values) -> list[int]:
    return [int(value) for value in values.tolist()]
