"""What finished runs tell of the cost of a step."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.preflight.speed import ATOM, EDGE, read_lines
from matsci_hpc.scaling.noise import largest_of
from matsci_hpc.scaling.step_cost import Line, fit_line

SAME = ("model", "precision", "optimize")
"""Sections that decide what a step of given samples costs."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Intervals between the lines of metrics.jsonl.

    Attributes:
        line: of the computing time of a rank.
        optimizer_s: of a step.
        noise: between ranks.
        shares: least and largest mean predicted cost of a rank.
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
    costs: list[float] = []
    compute_s: list[float] = []
    optimizer_s: list[float] = []
    noises: list[float] = []
    for run_dir in run_dirs:
        before = load_config(TrainConfig, run_dir / "config.yaml")
        for section in SAME:
            if getattr(before, section) != getattr(config, section):
                raise UserInputError(f"--from {run_dir}: that run has another {section!r}, so its steps tell nothing")
        usable = _usable(run_dir)
        if len(usable) < 2:
            raise UserInputError(f"--from {run_dir}: it has recorded too few steps")
        for line in usable:
            costs.append(line["cost"])
            compute_s.append(line["compute_s"])
            optimizer_s.append(line["optimizer_s"])
            noises += line["noises"]
    return Recorded(
        line=fit_line(costs, compute_s),
        optimizer_s=float(np.median(optimizer_s)),
        noise=float(np.median(noises)) if noises else 0.0,
        shares=(min(costs), max(costs)),
        lines=len(costs),
    )


def _usable(run_dir: Path) -> list[dict[str, Any]]:
    """Cost and times of a mean rank, line by line; the first line of a life allocates memory and reads cold files."""
    lines = read_lines(run_dir / "metrics.jsonl")
    found = []
    for before, line in itertools.pairwise(lines):
        if before.get("life") != line.get("life"):
            continue
        try:
            ranks, step_s = int(line["ranks"]), float(line["step_time_s"])
            # Means over the interval: `atoms` and `edges` of a line are those of its last step.
            edges, atoms = float(line["edges_per_s"]) * step_s, float(line["atoms_per_s"]) * step_s
            mean_s, largest_s = float(line["compute_time_s"]), float(line["compute_time_max_s"])
            if min(edges + atoms, mean_s) <= 0:
                continue
            found.append(
                {
                    "cost": (EDGE * edges + ATOM * atoms) / ranks,
                    "compute_s": mean_s,
                    "optimizer_s": float(line["optimizer_time_s"]),
                    # Means of an interval differ less than single steps do, so this is the least that it can be.
                    "noises": [(largest_s / mean_s - 1) / largest_of(ranks)] if ranks > 1 else [],
                }
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
    return found
