"""The files of records that rank 0 writes for the whole run, and the logs of other programs beside them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matsci_hpc.confusion import recorded
from matsci_hpc.telemetry.interval import Interval, Values
from matsci_hpc.telemetry.lines import whole_lines
from matsci_hpc.telemetry.rank_lines import RankLines, intervals_per_line
from matsci_hpc.telemetry.recorder import JsonLines
from matsci_hpc.telemetry.sinks.opening import open_sinks
from matsci_hpc.telemetry.sinks.sink import TRAINING, Origin, numbers_of
from matsci_hpc.telemetry.sinks.thread import close_sinks
from matsci_hpc.telemetry.stragglers import NAMED, StragglerWatch
from matsci_hpc.training.setup import Run

PLACE = {"step", "life"}
"""Keys of a line that say where it belongs and are no results."""
RESULTS = ("loss", "lr", "grad_norm")
"""Of a step that comes out the same when a life repeats it; times never do."""


class RunFiles:
    """metrics.jsonl, evaluations.jsonl, ranks.jsonl, and the sinks.

    Args:
        run: its folder, config and state.
        life: number of this life, from 0.
        hosts: of each rank.

    Attributes:
        watch: follows the stragglers.
    """

    def __init__(self, run: Run, life: int, hosts: Sequence[str]) -> None:
        records, folder, ranks = run.config.records, run.folder, run.comm.size
        self.watch = StragglerWatch(hosts, records.straggler_ratio)
        # Read before anything is appended: what the lives before have written.
        before = [line for path in (folder.metrics, folder.evaluations) if records.sinks for line in _steps_of(path)]
        self._written = {_key(line): _results(line) for line in before}
        origin = Origin(folder.path, run.state.step, len(before), run.config_text)
        self._metrics = JsonLines(folder.metrics)
        self._evaluations = JsonLines(folder.evaluations)
        self._ranks: JsonLines | None = None
        if records.ranks_mb:
            self._ranks = JsonLines(folder.ranks)
            every = run.config.log_every
            self._rank_lines = RankLines(
                intervals_per_line(run.config.steps, every, ranks, records.ranks_mb), every, life, run.state.rollbacks
            )
        self._tick = run.comm.activity.tick
        self._sinks = open_sinks(records.sinks, origin)

    def add_metrics(self, line: dict[str, Any]) -> None:
        """Add a line of metrics; of its stragglers, the slowest are named and all are counted."""
        stragglers = line.pop("stragglers")
        line |= {"straggler_count": len(stragglers), "stragglers": stragglers[:NAMED]}
        self._metrics.append(line)
        self._send(TRAINING, line)

    def add_evaluation(self, line: dict[str, Any]) -> None:
        """Add a line of evaluations; of many classes without their confusion, so that the file stays small."""
        self._evaluations.append(line | {"confusion": recorded(line["confusion"])})
        known = {key: value for key, value in line.items() if key not in {"metrics", "per_class", "confusion"}}
        self._send(str(line["split"]), known | line["metrics"])

    def add_ranks(self, step: int, interval: Interval, cost: Values) -> None:
        """Add an interval to the record of every rank."""
        if self._ranks is not None and (line := self._rank_lines.add(step, interval, cost)) is not None:
            self._ranks.append(line)

    def go_back(self, step: int, rollbacks: int) -> None:
        """The run has gone back to an earlier step, and takes another course from there.

        Args:
            step: of the checkpoint.
            rollbacks: of the run so far.
        """
        self._written.clear()  # the newest lines of these steps may be those of the course given up
        if self._ranks is not None:
            self._rank_lines.go_back(step, rollbacks)
        for sink in self._sinks:
            sink.go_back(step)

    def close(self) -> None:
        """See to it that everything is on disk; errors as of `JsonLines.close`."""
        if self._ranks is not None and (line := self._rank_lines.end()) is not None:
            self._ranks.append(line)
        for lines in (self._metrics, self._evaluations, self._ranks):
            if lines is not None:
                lines.close()
        close_sinks(self._sinks, self._tick)

    def _send(self, prefix: str, line: dict[str, Any]) -> None:
        if self._sinks:
            numbers = numbers_of({key: value for key, value in line.items() if key not in PLACE}, prefix)
            repeated = self._written.get(_key(line)) == _results(line)
            for sink in self._sinks:
                sink.write(line["step"], numbers, repeated=repeated)


def _steps_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file that are about a step."""
    return [each for each in whole_lines(path) if type(each.get("step")) is int]


def _key(line: dict[str, Any]) -> tuple[int, str]:
    """What a line is about: a step of training, or the evaluation of a split."""
    return line["step"], str(line.get("split", ""))


def _results(line: dict[str, Any]) -> tuple[Any, ...]:
    """What would differ if the step were another one; a number that is not finite is none, as on disk."""
    values = [line.get(key) for key in RESULTS]
    return tuple(None if isinstance(each, float) and not math.isfinite(each) else each for each in values)
