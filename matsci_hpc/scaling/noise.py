"""A step waits for its slowest rank: how the largest of many noisy times grows with their number."""

from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
POINTS = 400
"""Of the integral over the time."""
BINS = 512
"""Ranks of about the same share are counted together."""
REACH = 8.0
"""Standard deviations beyond which nobody is looked for: 65,536 ranks reach 4.3 in the mean."""


@cache
def largest_of(count: int) -> float:
    """Mean of the largest of so many independent standard normal numbers: the mean of F^-1(u^(1/n)) over u in (0, 1).

    0.85 of 3, 2.51 of 100, 4.29 of 65,536 (H. A. David and H. N. Nagaraja, Order Statistics, 2003).
    """
    middle = (np.arange(POINTS * 10) + 0.5) / (POINTS * 10)
    normal = NormalDist()
    return float(np.mean([normal.inv_cdf(each) for each in (middle ** (1 / count)).tolist()]))


def expected_largest(times_s: Floats, noise: float) -> float:
    """Mean of the largest of independent normal times: the integral of 1 - P(all are below t) over t.

    Args:
        times_s: mean time of each rank, float64 [ranks].
        noise: standard deviation of each over its mean.
    """
    largest = float(times_s.max())
    if noise <= 0 or largest <= 0:
        return largest
    edges = np.linspace(float(times_s.min()), largest, BINS + 1)
    where = np.clip(np.searchsorted(edges, times_s, side="right") - 1, 0, BINS - 1)
    counts = np.bincount(where, minlength=BINS).astype(np.float64)
    means = np.bincount(where, weights=times_s, minlength=BINS) / np.maximum(counts, 1)
    used = (counts > 0) & (means > 0)
    counts, means = counts[used], means[used]
    # The largest is at least about the largest mean less a few deviations, and below it the integrand is 1.
    low = max(0.0, largest * (1 - REACH * noise))
    grid = np.linspace(low, largest * (1 + REACH * noise), POINTS)
    deviations = torch.from_numpy((grid[:, None] - means) / (noise * means))
    below = torch.exp(torch.special.log_ndtr(deviations) @ torch.from_numpy(counts))
    return low + float(torch.trapezoid(1 - below, torch.from_numpy(grid)))
