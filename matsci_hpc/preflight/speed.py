"""How long a step takes: from what this run or a like one has written down, or from a trial here."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight.measured import Trial
from matsci_hpc.preflight.words import counted, time_in_words
from matsci_hpc.telemetry.lines import whole_lines

NEWEST_LINES = 200
"""Of metrics.jsonl that a speed is taken from."""
EDGE, ATOM = 1.0, 30.0
"""Predicted cost of an edge and of an atom, as `CostModel` has them, whose module needs torch."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What a step takes, and how this is known.

    Attributes:
        step_s: mean time of a step.
        low_s, high_s: between which nine of ten measured steps, or intervals between records, lie.
        longest_s: of the longest step to expect.
        startup_s: from the start of the ranks to the first step.
        evaluation_s: of one evaluation.
        final_s: of that of `evaluate.final_split`, if the run has one.
        source: where the figures are from, in words.
        measured_there: by a run on such ranks; otherwise by a trial on this machine.
    """

    step_s: float
    low_s: float
    high_s: float
    longest_s: float
    startup_s: float
    evaluation_s: float
    source: str
    measured_there: bool
    final_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The run that a speed is wanted for: its ranks, and the mean cost of a step that is waited for.

    Attributes:
        ranks: of the job.
        step_cost: predicted cost of a step on all ranks together; None if it is that of the recorded run.
        efficiency: time of perfectly divided steps over that of real ones; None if not known.
    """

    ranks: int
    step_cost: float | None = None
    efficiency: float | None = None


def recorded_speed(run_dir: Path, wanted: Wanted) -> Speed | None:
    """The speed that a run has recorded, for so many ranks; None if there is too little to go by.

    Computing goes with the share of a rank; waiting for data, ranks and the optimiser are taken as they were.

    Args:
        run_dir: of the recorded run.
        wanted: of the run to come.
    """
    lines = whole_lines(run_dir / "metrics.jsonl")[-NEWEST_LINES:]
    # The first line of a life holds the steps that allocate memory and read cold files.
    usable = [line for before, line in itertools.pairwise(lines) if line.get("life") == before.get("life")]
    times: list[tuple[int, float, float, float]] = []
    costs = []
    for line in usable or lines[1:]:
        try:
            cost = EDGE * int(line["edges"]) + ATOM * int(line["atoms"])
            compute_s, step_s = float(line["compute_time_max_s"]), float(line["step_time_s"])
            times.append((int(line["ranks"]), compute_s, step_s, 1 / float(line["cost_imbalance"])))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
        costs.append(cost)
    if not times:
        return None
    mean_cost = sum(costs) / len(costs)
    work = (wanted.step_cost or mean_cost) / mean_cost
    steps = []
    for ranks, compute_s, step_s, efficiency in times:
        worse = efficiency / wanted.efficiency if wanted.efficiency and ranks != wanted.ranks else 1.0
        steps.append(step_s + compute_s * (work * worse * ranks / wanted.ranks - 1))
    evaluations = whole_lines(run_dir / "evaluations.jsonl")
    # Only the final one says which parameters were chosen for it.
    taken, final = (
        [
            float(time_s)
            for each in evaluations
            if ("chosen" in each) == is_final and isinstance(time_s := each.get("time_taken_s"), int | float)
        ]
        for is_final in (False, True)
    )
    scale = max(ranks for ranks, *_ in times) / wanted.ranks
    ranks_then = sorted({ranks for ranks, *_ in times})
    on = ", ".join(f"{each:,}" for each in ranks_then)
    scaled = "" if ranks_then == [wanted.ranks] else f", scaled from {on} to {counted(wanted.ranks, 'rank')}"
    low, high = spread(steps)
    return Speed(
        step_s=sum(steps) / len(steps),
        low_s=low,
        high_s=high,
        longest_s=max(steps),
        startup_s=0.0,
        evaluation_s=median(taken) * scale if taken else 0.0,
        source=f"{counted(len(steps), 'record')} of {run_dir}{scaled}",
        measured_there=True,
        final_s=final[-1] * scale if final else 0.0,
    )


def like_speed(like: Path, config: TrainConfig, wanted: Wanted) -> Speed:
    """The speed of another run, for this one.

    Raises:
        UserInputError: there is no such run, it has another model, or it has not recorded enough.
    """
    before = load_config(TrainConfig, like / "config.yaml")
    for section in ("model", "precision"):
        if getattr(before, section) != getattr(config, section):
            raise UserInputError(f"--like {like}: that run has another {section!r}, so its speed tells nothing")
    found = recorded_speed(like, wanted)
    if found is None:
        raise UserInputError(f"--like {like}: it has recorded too few steps")
    return found


def completed_speed(recorded: Speed, trial: Trial) -> Speed:
    """A recorded speed with what runs do not record: their start, and of those that have not ended the last evaluation.

    The trial knows how much longer that is than one of the held-out split.
    """
    final_s = recorded.final_s
    if not final_s:
        both = recorded.evaluation_s and trial.evaluation_s
        final_s = trial.final_s * (recorded.evaluation_s / trial.evaluation_s if both else 1.0)
    return replace(recorded, startup_s=trial.startup_s, final_s=final_s)


def trial_speed(trial: Trial) -> Speed:
    """The speed of the run from a few steps of one rank here, scaled to the ranks that a step waits for.

    What ranks take to exchange gradients is not in it.
    """
    per_cost = [time_s / cost for time_s, cost in zip(trial.step_times_s, trial.step_costs, strict=True) if cost]
    mean_s = trial.mean_cost / trial.costs_per_s
    low, high = spread([trial.mean_cost * each for each in per_cost]) if per_cost else (mean_s, mean_s)
    busy = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    also = f", which is busy now ({busy:.1f} programs a core)" if busy > 1 else ""
    return Speed(
        step_s=mean_s,
        low_s=low,
        high_s=high,
        longest_s=max(trial.first_step_s, trial.largest_cost / trial.costs_per_s),
        startup_s=trial.startup_s,
        evaluation_s=trial.evaluation_s,
        source=f"{counted(len(per_cost), 'step')} of one rank on {counted(trial.threads, 'core')} here{also}",
        measured_there=False,
        final_s=trial.final_s,
    )


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of the middle nine tenths; of few values, the least and the largest."""
    if len(values) < 20:
        return min(values), max(values)
    cuts = quantiles(values, n=20)
    return cuts[0], cuts[-1]


def in_words(speed: Speed) -> str:
    """`0.21 s a step (0.2 s to 0.25 s), from ...`."""
    return f"{time_in_words(speed.step_s)} a step ({time_in_words(speed.low_s)} to {time_in_words(speed.high_s)})"
