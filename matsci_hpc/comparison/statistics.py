"""Two arms seed by seed: the mean difference, how sure it is, and what may be said of it.

Runs of one seed share the order of the samples and the subset, so differences within a seed spread less than the runs
do: they are what is tested.

    mean difference   d = mean(d_s),  d_s = value of the arm - value of the reference, seed s of n
    interval          d -+ t(0.975, n - 1) s_d / sqrt(n),  s_d the standard deviation of the d_s (Student, 1908)
    p value           of t = d sqrt(n) / s_d, two-sided: how often a difference as large is seen where there is none
    Wilcoxon          signed ranks, exact (Wilcoxon, Biometrics Bulletin 1, 80, 1945): asks for no normal distribution,
                      and with n seeds is never below 2^(1 - n)
    Holm              p values of several comparisons, each raised so that one false finding among all of them is as
                      rare as each claims (Holm, Scand. J. Statist. 6, 65, 1979)
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from matsci_hpc.comparison.metrics import Direction

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
ROUNDING = 1e-12
Verdict = Literal["better", "worse", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Paired:
    """An arm against the reference, over the seeds that both have.

    Attributes:
        seeds: how many these are.
        difference: mean, in the unit of the metric; negative where the arm is lower.
        low, high: interval of 95 % of it; None with one seed, or where all differences are equal.
        p: of the paired t test; None where there is no interval.
        wilcoxon: p of the signed-rank test; None where no seed differs.
        least_wilcoxon: the smallest that so many seeds can give.
        relative, relative_low, relative_high: the same as a share of the reference's mean; None where that is zero.
        verdict: by its own interval alone: whether the arm is better or worse than the reference.
    """

    seeds: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    wilcoxon: float | None
    least_wilcoxon: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    verdict: Verdict


def compare_pairs(values: Sequence[float], reference: Sequence[float], better: Direction) -> Paired:
    """Compare an arm with the reference.

    Args:
        values: of the arm, one for each seed.
        reference: of the reference, of the same seeds in the same order, at least one.
        better: which values are.
    """
    differences = np.array(values, dtype=np.float64) - np.array(reference, dtype=np.float64)
    # A difference of rounding is none.
    differences[np.abs(differences) <= ROUNDING * np.maximum(np.abs(values), np.abs(reference))] = 0.0
    mean = float(differences.mean())
    if abs(mean) <= ROUNDING * float(np.abs(differences).max()):
        mean = 0.0
    low, high, p = _student(differences)
    base = abs(float(np.mean(reference)))
    relative = [None if each is None or base == 0 else each / base for each in (mean, low, high)]
    verdict: Verdict = "cannot be told"
    if low is not None and high is not None and (low > 0 or high < 0):
        verdict = "better" if (high < 0) == (better == "lower") else "worse"
    return Paired(
        seeds=len(differences),
        difference=mean,
        low=low,
        high=high,
        p=p,
        wilcoxon=_wilcoxon(differences),
        least_wilcoxon=2.0 ** (1 - len(differences)),
        relative=relative[0],
        relative_low=relative[1],
        relative_high=relative[2],
        verdict=verdict,
    )


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation of the runs, with n - 1; None of one run."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values raised for their number; those that are None stay so and do not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    raised: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        raised[place] = largest
    return raised


def _student(
    differences: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> tuple[float | None, float | None, float | None]:
    """Ends of the interval of the mean and the p value of the paired t test."""
    from scipy import stats

    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return None, None, None
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    # Equal differences show no spread, from which no test can tell chance: metrics in coarse steps, or arms that do not
    # differ at all. What is left of rounding is no spread either, and a test would divide by it.
    if error <= ROUNDING * abs(mean) or error == 0:
        return None, None, None
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return mean - half, mean + half, float(stats.ttest_1samp(differences, 0.0).pvalue)


def _wilcoxon(differences: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float | None:
    from scipy import stats

    if not differences.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties among few seeds, where it takes the normal approximation
        return float(stats.wilcoxon(differences).pvalue)
