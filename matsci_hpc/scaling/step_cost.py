"""What a step costs one rank, as measured: the model that predictions are made from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.scaling.exposure import Bucket

Floats = NDArray[np.float64]
MIN_SPREAD = 2.0
"""Largest over least share from which on the time of an empty share can be told."""
OF_NORMAL = 1.4826
"""Standard deviation of normal numbers over the median of their distances from the middle one."""
ROUNDS = 50
SMALLEST = 1e-3


@dataclass(frozen=True, slots=True)
class Line:
    """Time of computing a share = fixed + per_cost * predicted cost of the share.

    Attributes:
        fixed_s: whatever the share.
        per_cost_s: of an edge (an atom costs as much as 30 of them).
        noise: standard deviation of the measured times around the line, relative to it, from the median distance.
        fixed_known: whether the shares differed enough to tell the fixed part; otherwise it is taken as zero.
    """

    fixed_s: float
    per_cost_s: float
    noise: float
    fixed_known: bool


@dataclass(frozen=True, slots=True)
class StepCost:
    """What was measured of a step.

    Attributes:
        line: time of forward and backward passes.
        optimizer_s: norm, clipping and update, whatever the share.
        input: reading and collating a share in the thread that runs beside.
        buckets: of gradients, as the run sends them.
        sum_bytes_per_s: how fast tensors are added up here.
        noise: between ranks, relative standard deviation of a step's computing time; 0 if it is not counted.
        shares: least and largest predicted cost of the measured shares; beyond them the line is extrapolated. None
            where they are not known.
        steps: measured.
        source: where it is from, in words.
    """

    line: Line
    optimizer_s: float
    input: Line
    buckets: tuple[Bucket, ...]
    sum_bytes_per_s: float
    noise: float
    shares: tuple[float, float] | None
    steps: int
    source: str


def fit_line(costs: Sequence[float], times_s: Sequence[float]) -> Line:
    """Fit the line, neither part negative, so that the sum of relative errors, without squares, is least.

    Relative ones, since a small share is to count as much as a large one; without squares, since steps that other
    programs held up are to count little. By least squares whose weights are the inverse errors of the round before.

    Args:
        costs: of the shares, above zero.
        times_s: that they took.
    """
    x, y = np.asarray(costs, dtype=np.float64), np.asarray(times_s, dtype=np.float64)
    proportional = float(np.median(y / x))
    fixed_known = len(x) > 2 and bool(x.max() >= MIN_SPREAD * x.min())
    fixed, per_cost = _least_errors(x, y) if fixed_known else (0.0, proportional)
    if fixed < 0 or per_cost <= 0:
        fixed, per_cost = 0.0, proportional
    errors = y / (fixed + per_cost * x) - 1
    return Line(fixed, per_cost, float(OF_NORMAL * np.median(np.abs(errors - np.median(errors)))), fixed_known)


def _least_errors(x: Floats, y: Floats) -> tuple[float, float]:
    terms = np.stack([1 / y, x / y], axis=1)
    scale = np.abs(terms).max(axis=0)
    weights = np.ones_like(y)
    solution = np.zeros(2)
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        solution, *_ = np.linalg.lstsq(terms / scale * root[:, None], root)
        # Divided by the prediction, not by the time: of a step held up for long, the time is what is wrong.
        predicted = np.maximum((terms / scale) @ solution, SMALLEST)
        weights = 1 / np.maximum(np.abs(1 / predicted - 1), SMALLEST) / predicted
    fixed, per_cost = solution / scale
    return float(fixed), float(per_cost)
