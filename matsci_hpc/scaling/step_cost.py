"""What a step costs one rank, as measured: the model that predictions are made from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.scaling.exposure import Bucket

Floats = NDArray[np.float64]
MIN_SPREAD = 1.2
"""Largest over least share from which on the time of an empty share can be told."""


@dataclass(frozen=True, slots=True)
class Line:
    """Time of computing a share = fixed + per_cost * predicted cost of the share.

    Attributes:
        fixed_s: whatever the share.
        per_cost_s: of an edge (an atom costs as much as 30 of them).
        noise: standard deviation of the measured times around the line, relative to it.
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
        input_per_cost_s: reading and collating a share in the thread that runs beside, for each edge of it.
        buckets: of gradients, as the run sends them.
        sum_bytes_per_s: how fast tensors are added up here.
        noise: between ranks, relative standard deviation of a step's computing time; 0 if it is not counted.
        shares: least and largest predicted cost of the measured shares; beyond them the line is extrapolated.
        steps: measured.
        source: where it is from, in words.
    """

    line: Line
    optimizer_s: float
    input_per_cost_s: float
    buckets: tuple[Bucket, ...]
    sum_bytes_per_s: float
    noise: float
    shares: tuple[float, float]
    steps: int
    source: str


def fit_line(costs: Sequence[float], times_s: Sequence[float]) -> Line:
    """Fit the line, neither part negative, by least squares of relative errors.

    Relative ones, since a small share is to count as much as a large one, and noise grows with the time.

    Args:
        costs: of the shares, above zero.
        times_s: that they took.
    """
    x, y = np.asarray(costs, dtype=np.float64), np.asarray(times_s, dtype=np.float64)
    proportional = Line(0.0, float(np.median(y / x)), 0.0, fixed_known=False)
    line = proportional
    if x.max() >= MIN_SPREAD * x.min() and len(x) > 2:
        terms = np.stack([1 / y, x / y], axis=1)
        scale = np.abs(terms).max(axis=0)
        (fixed, per_cost), *_ = np.linalg.lstsq(terms / scale, np.ones_like(y))
        fixed, per_cost = fixed / scale[0], per_cost / scale[1]
        if fixed < 0 or per_cost <= 0:
            line = Line(0.0, proportional.per_cost_s, 0.0, fixed_known=True)
        else:
            line = Line(float(fixed), float(per_cost), 0.0, fixed_known=True)
    errors = y / (line.fixed_s + line.per_cost_s * x) - 1
    return Line(line.fixed_s, line.per_cost_s, float(errors.std()), line.fixed_known)
