"""The lines of ranks.jsonl: what each rank did and how long it took, over as many steps as the bound on the file needs.

A line a step of 512 ranks over 100,000 steps would be 5 GB. Sums over the steps of a line lose little: a rank that is
slow for a while shows in them, and a single slow step is in the stragglers of metrics.jsonl. So the number of intervals
that share a line follows from the planned steps, the ranks and the bound, and is known when the run begins. Lines end
at fixed steps, the same in every life, so that a later life replaces what it takes back.
"""

import math
from typing import Any

import numpy as np

from matsci_hpc.telemetry.clock import PHASES
from matsci_hpc.telemetry.interval import COLUMNS, Interval, Values

BYTES_PER_RANK = 120
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


class RankLines:
    """Adds up intervals to lines.

    Args:
        per_line: intervals of a line.
        log_every: steps of an interval.
        life: of the run.
    """

    def __init__(self, per_line: int, log_every: int, life: int) -> None:
        self._span = per_line * log_every
        self._life = life
        self._steps = 0
        self._last_step = 0
        self._table: Values | None = None
        self._cost: Values | None = None

    def add(self, step: int, interval: Interval, cost: Values) -> dict[str, Any] | None:
        """Add an interval; the line, if it is full.

        Args:
            step: the last one of the interval.
            interval: of all ranks.
            cost: float64 [ranks], predicted time of their work.
        """
        if step <= self._last_step:  # the run went back to an earlier step: what was begun is taken back
            self._steps, self._table, self._cost = 0, None, None
        if self._table is None or self._cost is None:
            self._table, self._cost = interval.table.copy(), cost.copy()
        else:
            self._table, self._cost = _joined(self._table, interval.table), self._cost + cost
        self._steps += interval.steps
        self._last_step = step
        return self.end() if step % self._span == 0 else None

    def end(self) -> dict[str, Any] | None:
        """The line that has been begun, if one has."""
        if self._table is None or self._cost is None:
            return None
        columns = dict(zip(COLUMNS, self._table.T, strict=True))
        line: dict[str, Any] = {
            "step": self._last_step,
            "first_step": self._last_step - self._steps + 1,
            "life": self._life,
            "steps": self._steps,
            **{f"{phase}_time_s": _short(columns[phase] / self._steps) for phase in PHASES},
            "step_time_s": _short(columns["total"] / self._steps),
            **{what: _whole(columns[what]) for what in ("graphs", "atoms", "edges")},
            "predicted_cost": _short(self._cost / self._steps),
            "memory_bytes": _whole(columns["memory_bytes"]),
        }
        if columns["device_memory_bytes"].any():
            line["device_memory_bytes"] = _whole(columns["device_memory_bytes"])
        for energy in ("cpu_energy_j", "gpu_energy_j"):
            if np.isfinite(columns[energy]).any():
                line[energy] = _short(columns[energy])
        self._steps, self._table, self._cost = 0, None, None
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
