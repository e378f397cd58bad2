"""What finished runs tell of the cost of a step."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matsci_hpc.analysis.records import is_of_ranks, life_of, valid_steps
from matsci_hpc.analysis.records import read_lines as read_rank_lines
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight.speed import ATOM, EDGE
from matsci_hpc.scaling.noise import largest_of
from matsci_hpc.scaling.step_cost import Floats, Line, fit_line
from matsci_hpc.telemetry.lines import whole_lines

SAME = ("model", "precision", "optimize")
"""Sections that decide what a step of given samples costs."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Intervals between the lines of metrics.jsonl.

    Attributes:
        line: of the computing time of a rank.
        optimizer_s: of a step.
        noise: between ranks, beyond what their unequal shares explain.
        shares: least predicted cost of a mean rank, and largest of the rank with the largest share.
        lines: that were used.
    """

    line: Line
    optimizer_s: float
    noise: float
    shares: tuple[float, float]
    lines: int


def recorded_cost(run_dirs: Sequence[Path], config: TrainConfig) -> Recorded:
    """Fit the lines of metrics of one or several runs.

    Runs of other ranks or batches tell the fixed part of a step; one alone hardly can.

    Args:
        run_dirs: of the runs.
        config: of the run that is predicted.

    Raises:
        UserInputError: one is no run, has another model, or has recorded too little.
    """
    lines: list[_Line] = []
    by_rank: dict[Path, list[tuple[Floats, Floats]]] = {}
    for run_dir in run_dirs:
        before = load_config(TrainConfig, run_dir / "config.yaml")
        for section in SAME:
            if getattr(before, section) != getattr(config, section):
                raise UserInputError(f"--from {run_dir}: that run has another {section!r}, so its steps tell nothing")
        usable = _usable(run_dir)
        if len(usable) < 2:
            raise UserInputError(f"--from {run_dir}: it has recorded too few steps")
        lines += usable
        by_rank[run_dir] = list(_by_rank(run_dir))
    fitted = fit_line([each.cost for each in lines], [each.mean_s for each in lines])
    # Of lines of metrics.jsonl the largest time and the largest share may be of different ranks, if they hold several
    # steps: where every rank is known, that is better.
    noises = [_spread(times, costs, fitted) for found in by_rank.values() for costs, times in found]
    noises = noises or [_noise(each, fitted) for each in lines if each.ranks > 1]
    return Recorded(
        line=fitted,
        optimizer_s=float(np.median([each.optimizer_s for each in lines])),
        noise=max(float(np.median(noises)), 0.0) if noises else 0.0,
        shares=(min(each.cost for each in lines), max(each.largest_cost for each in lines)),
        lines=len(lines),
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """What a line of metrics tells, as means over its steps.

    Attributes:
        ranks: of the run.
        cost, largest_cost: predicted, of the mean rank and of the one with the largest share.
        mean_s, largest_s: computing time of the mean rank and of the slowest one.
        optimizer_s: of a step.
    """

    ranks: int
    cost: float
    largest_cost: float
    mean_s: float
    largest_s: float
    optimizer_s: float


def _noise(line: _Line, fitted: Line) -> float:
    """Relative spread of ranks: by how much the slowest is later than its larger share alone would make it.

    Means of an interval differ less than single steps do, so this is the least that it can be. It may come out below
    zero for one line, which the median of many is not to be raised by.
    """
    mean_s = fitted.fixed_s + fitted.per_cost_s * line.cost
    larger = (fitted.fixed_s + fitted.per_cost_s * line.largest_cost) / mean_s
    return (line.largest_s / (line.mean_s * larger) - 1) / largest_of(line.ranks)


def _spread(times_s: Floats, costs: Floats, fitted: Line) -> float:
    """The same from the time and the share of every rank, float64 [ranks] each."""
    ratios = times_s / (fitted.fixed_s + fitted.per_cost_s * costs)
    return (float(ratios.max() / ratios.mean()) - 1) / largest_of(len(ratios))


def _by_rank(run_dir: Path) -> Iterator[tuple[Floats, Floats]]:
    """Cost and computing time of each rank in a step, float64 [ranks], line by line without the first of each life."""
    found, _ = read_rank_lines(run_dir / "ranks.jsonl")
    for before, line in itertools.pairwise(line for line in valid_steps(found) if is_of_ranks(line)):
        if life_of(before) != life_of(line):
            continue
        try:
            edges, atoms = (np.asarray(line[name], dtype=np.float64) for name in ("edges", "atoms"))
            costs = (EDGE * edges + ATOM * atoms) / int(line["steps"])
            times_s = np.asarray(line["forward_time_s"]) + np.asarray(line["backward_time_s"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
        if len(costs) == len(times_s) > 1 and min(costs.min(), times_s.min()) > 0:
            yield costs, times_s


def _usable(run_dir: Path) -> list[_Line]:
    """Cost and times of a mean rank, line by line; the first line of a life allocates memory and reads cold files."""
    lines = whole_lines(run_dir / "metrics.jsonl")
    found = []
    for before, line in itertools.pairwise(lines):
        if before.get("life") != line.get("life"):
            continue
        try:
            ranks, step_s = int(line["ranks"]), float(line["step_time_s"])
            # Means over the interval: `atoms` and `edges` of a line are those of its last step.
            edges, atoms = float(line["edges_per_s"]) * step_s, float(line["atoms_per_s"]) * step_s
            mean_s, imbalance = float(line["compute_time_s"]), max(float(line["cost_imbalance"]), 1.0)
            if min(edges + atoms, mean_s) <= 0:
                continue
            cost = (EDGE * edges + ATOM * atoms) / ranks
            found.append(
                _Line(
                    ranks=ranks,
                    cost=cost,
                    largest_cost=cost * imbalance,
                    mean_s=mean_s,
                    largest_s=float(line["compute_time_max_s"]),
                    optimizer_s=float(line["optimizer_time_s"]),
                )
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
    return found
