"""What one run of a study measured: its steps without the warm-up, as sums over all of them."""

import json
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass

from matsci_hpc.analysis.records import Record, as_number, life_of, read_run
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.pop import efficiencies
from matsci_hpc.scaling.study_code import read_provenance
from matsci_hpc.scaling.study_plan import StudyRun

TIMES = (
    *("step_time_s", "step_time_mean_s", "step_time_min_s", "data_time_s", "compute_time_s", "compute_time_max_s"),
    *("comm_time_s", "comm_in_flight_s", "optimizer_time_s", "other_time_s", "cost_imbalance"),
)
"""Figures of a metrics line that are means over its steps."""
HELPERS = ("compute_time_max_s", "step_time_mean_s", "step_time_min_s")
"""Of these, what others are computed from, and stands in no table by itself."""
RATES = ("graphs_per_s", "atoms_per_s", "edges_per_s")
"""Work over the time of the slowest rank."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a run measured.

    Attributes:
        ranks: that it ran on.
        throughput: samples/s of all ranks together, over the measured steps or the whole preparation.
        time_s: of that.
        samples: worked on in that time.
        step_time_s: mean time of a step; None for a preparation.
        details: further figures by name: times in seconds per step, shares of 1, bytes.
    """

    ranks: int
    throughput: float
    time_s: float
    samples: int
    step_time_s: float | None
    details: dict[str, float | str]


def measure(run: StudyRun, warmup_steps: int) -> Measurement:
    """Read what a complete run has recorded.

    Args:
        run: of the study.
        warmup_steps: steps that do not count at the beginning of each life.

    Raises:
        UserInputError: it has not recorded what is needed.
    """
    if not isinstance(run.config, TrainConfig):
        return _measure_preparation(run)
    found = read_run(run.job.output)
    kept = list(measured_lines(found.steps, run.config.log_every, warmup_steps))
    if not kept:
        raise UserInputError(f"{run.name}: no line of metrics.jsonl is beyond the {warmup_steps} steps of warm-up")
    ranks = {line.get("ranks") for line, _ in kept}
    if ranks != {run.job.ranks}:
        raise UserInputError(f"{run.name}: ran on {', '.join(sorted(map(str, ranks)))} ranks, not {run.job.ranks}")
    columns = {key: _column(run, kept, key) for key in (*TIMES, *RATES, "memory_bytes")}
    counts = [count for _, count in kept]
    steps = sum(counts)
    means = {key: math.fsum(map(operator.mul, columns[key], counts)) / steps for key in TIMES}
    times_s = list(map(operator.mul, columns["step_time_s"], counts))
    time_s = math.fsum(times_s)
    work = {key: math.fsum(map(operator.mul, columns[key], times_s)) for key in RATES}
    shares = efficiencies(
        means["step_time_s"],
        means["step_time_mean_s"],
        means["comm_time_s"],
        means["compute_time_s"],
        means["compute_time_max_s"],
    )
    samples = round(work["graphs_per_s"])
    return Measurement(
        ranks=run.job.ranks,
        throughput=samples / time_s,
        time_s=time_s,
        samples=samples,
        step_time_s=means["step_time_s"],
        details={
            **{key: value for key, value in means.items() if key not in HELPERS},
            "load_balance_efficiency": shares.load_balance,
            "communication_efficiency": shares.communication,
            "parallel_efficiency": shares.parallel,
            "atoms_per_s": work["atoms_per_s"] / time_s,
            "edges_per_s": work["edges_per_s"] / time_s,
            "memory_bytes": int(max(columns["memory_bytes"])),
            "steps": steps,
            "lives": len(found.new_lives) + 1,
            "backend": str(found.provenance.get("backend", "unknown")),
        },
    )


def measured_lines(lines: list[Record], log_every: int, warmup_steps: int) -> Iterator[tuple[Record, int]]:
    """The lines that count, each with the number of its steps.

    A life begins with steps that allocate memory and read cold files, so each life has a warm-up. One that goes on from
    a checkpoint, after a restart or a rollback, may begin between two lines: nobody knows how many steps its first line
    is about, so it does not count, and the warm-up begins with the last of them.
    """
    before: Record | None = None
    begin = last = 0
    for line in lines:
        if before is None:
            begin = last = max(line["step"] - log_every, 0)
        first_of_later = before is not None and life_of(before) != life_of(line)
        if first_of_later:
            begin = line["step"] - 1
        elif last >= begin + warmup_steps:
            yield line, line["step"] - last
        before, last = line, line["step"]


def _column(run: StudyRun, kept: list[tuple[Record, int]], key: str) -> list[float]:
    """A figure of every line that counts.

    Raises:
        UserInputError: a line lacks it.
    """
    found = [(line["step"], as_number(line.get(key))) for line, _ in kept]
    numbers = [number for _, number in found if number is not None]
    if len(numbers) < len(found):
        step = next(step for step, number in found if number is None)
        raise UserInputError(f"{run.name}: {run.job.output / 'metrics.jsonl'} has no {key} at step {step:,}")
    return numbers


def to_target(curve: list[tuple[int, int, float, float]], target: float, window: int = 10) -> tuple[int, float] | None:
    """Samples and seconds until the training loss, as a mean of the last lines, is at most the target.

    Args:
        curve: step, samples seen, time in seconds, loss.
        target: loss.
        window: lines of the mean, which evens out the differences between batches.

    Returns:
        None if it never is.
    """
    for end in range(window, len(curve) + 1):
        if math.fsum(loss for *_, loss in curve[end - window : end]) / window <= target:
            return curve[end - 1][1], curve[end - 1][2]
    return None


def _measure_preparation(run: StudyRun) -> Measurement:
    record = read_provenance(run)
    try:
        time_s, samples = float(record["time_s"]), int(_counts(run)["samples"])
        ranks, reused = int(record["ranks"]), int(record["reused_shards"])
    except (KeyError, TypeError, ValueError, OSError):
        raise UserInputError(f"{run.name}: {run.job.output} does not tell how long its preparation took") from None
    if reused:
        raise UserInputError(f"{run.name}: {reused} shards were there before, so its time is not that of the whole")
    if ranks != run.job.ranks:
        raise UserInputError(f"{run.name}: ran on {ranks} ranks, not {run.job.ranks}")
    return Measurement(
        ranks=ranks,
        throughput=samples / max(time_s, 1e-9),
        time_s=time_s,
        samples=samples,
        step_time_s=None,
        details={},
    )


def _counts(run: StudyRun) -> dict[str, int]:
    counts = json.loads((run.job.output / "dataset.json").read_text(encoding="utf-8"))["counts"]
    return dict(counts)
