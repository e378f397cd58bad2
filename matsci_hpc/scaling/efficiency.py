"""Speed-up and parallel efficiency of a series, with bootstrap intervals over the repeats.

Against a base of p0 ranks, the fewest that were measured unless another is named, and q = p / p0:

    speed-up S = X(p) / X(p0)        efficiency E = S / q        Karp-Flatt e = (1/S - 1/q) / (1 - 1/q)

| symbol | variable | unit |
|---|---|---|
| X | `throughput`, mean of the repeats | samples/s, or work/s |
| S, E, e | `speedup`, `efficiency`, `karp_flatt` | |

X counts the work that was done, so the same formulas hold for strong scaling, where the work stays the same, and for
weak scaling, where it grows with the ranks: then S is the scaled speed-up. The Karp-Flatt metric is the share of the
base's time that did not become faster. A share that stays the same as ranks are added is work that is not parallel; one
that grows is overhead, such as communication or imbalance.

Source: A. H. Karp, H. P. Flatt, Measuring Parallel Processor Performance, Commun. ACM 33 (1990) 539.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.table import WORK_PER_S, Floats, Series

CONFIDENCE = 0.95
RESAMPLES = 4000
_SECONDS_PER_HOUR = 3600.0
_MILLION = 1e6


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval, which a single measurement has not."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """One rank count of a series."""

    ranks: int
    repeats: int
    nodes: int | None
    throughput: Estimate
    speedup: Estimate
    efficiency: Estimate
    karp_flatt: Estimate | None
    """None at the base and below it."""
    node_hours: float
    """Nodes, or ranks where nodes are not known, times hours: for a million samples, or for the work that was timed."""


@dataclass(frozen=True)
class Efficiency:
    """A series against its base."""

    series: Series
    base_ranks: int
    points: tuple[Point, ...]

    @property
    def hours_unit(self) -> str:
        """What `node_hours` count."""
        unit = "node-hours" if all(point.nodes is not None for point in self.points) else "rank-hours"
        if self.series.unit != WORK_PER_S:
            return f"{unit} per million {counted_in(self.series.unit)}"
        # The work of a weak study grows with the ranks, and costs are compared for the same work.
        return f"{unit} of the work of one rank" if self.series.scaling == "weak" else f"{unit} of the measured work"

    @property
    def singles(self) -> tuple[int, ...]:
        """Rank counts that were measured once, so that they have no interval."""
        return tuple(point.ranks for point in self.points if point.repeats == 1)


def efficiency(series: Series, base_ranks: int | None = None, seed: int = 0) -> Efficiency:
    """Compare each rank count with the base.

    Args:
        series: what was measured.
        base_ranks: the rank count to compare with; None: the smallest.
        seed: of the bootstrap. The same measurements and seed give the same intervals.

    Raises:
        UserInputError: the base was not measured.
    """
    base = int(series.ranks[0]) if base_ranks is None else base_ranks
    counts = series.ranks.tolist()
    if base not in counts:
        measured = ", ".join(map(str, counts))
        raise UserInputError(f"{series.name}: {base} ranks are to be the base, and measured are {measured}")
    rates = series.rates[counts.index(base)]
    return Efficiency(series, base, tuple(_point(series, place, base, rates, seed) for place in range(len(counts))))


def _point(series: Series, place: int, base: int, base_rates: Floats, seed: int) -> Point:
    ranks = int(series.ranks[place])
    rates = series.rates[place]
    random = np.random.default_rng([seed, ranks])
    spread = bootstrap_means(rates, random)
    throughput = _estimate(float(rates.mean()), spread, len(rates))
    ratio = ranks / base
    if ranks == base:
        one = Estimate(1.0)
        speedup, share, serial = one, one, None
    else:
        # The base is drawn from the same numbers for every rank count, and anew for each resample.
        base_spread = bootstrap_means(base_rates, np.random.default_rng([seed, base]))
        speedups = spread / base_spread if spread is not None and base_spread is not None else None
        fewest = min(len(rates), len(base_rates))
        value = float(rates.mean() / base_rates.mean())

        def of(function: Callable[[Floats], Floats]) -> Estimate:
            changed = None if speedups is None else function(speedups)
            return _estimate(float(function(np.array([value]))[0]), changed, fewest)

        speedup, share = of(lambda S: S), of(lambda S: S / ratio)
        serial = of(lambda S: karp_flatt(S, ratio)) if ratio > 1 else None
    nodes = series.nodes[place]
    return Point(
        ranks=ranks,
        repeats=len(rates),
        nodes=nodes,
        throughput=throughput,
        speedup=speedup,
        efficiency=share,
        karp_flatt=serial,
        node_hours=_hours(series, place, all(each is not None for each in series.nodes)),
    )


def mean_estimate(values: Floats, seed: int = 0) -> Estimate:
    """Mean of repeats with its interval.

    Args:
        values: of the repeats, [repeats].
        seed: of the bootstrap.
    """
    return _estimate(float(values.mean()), bootstrap_means(values, np.random.default_rng(seed)), len(values))


def counted_in(rate_unit: str) -> str:
    """What is counted where so much of it is done per second: samples of samples/s."""
    what, slash, _ = rate_unit.rpartition("/")
    return what.strip() if slash else f"{rate_unit} x s"


def karp_flatt(speedup: Floats, ratio: float) -> Floats:
    """The serial share that a speed-up on `ratio` times as many ranks amounts to, by experience."""
    return np.asarray((1 / speedup - 1 / ratio) / (1 - 1 / ratio))


def bootstrap_means(values: Floats, random: np.random.Generator, resamples: int = RESAMPLES) -> Floats | None:
    """Means of as many values drawn with replacement, [resamples]; None of a single value."""
    if len(values) < 2:
        return None
    return np.asarray(values[random.integers(len(values), size=(resamples, len(values)))].mean(axis=1))


def _estimate(value: float, drawn: Floats | None, repeats: int) -> Estimate:
    """With the expanded percentile interval.

    The plain percentiles of few repeats are too narrow, since the spread of n values is too small by sqrt((n - 1) / n)
    and the normal quantile by that of Student: the percentiles are moved out by both. Source: T. C. Hesterberg, What
    Teachers Should Know About the Bootstrap, Am. Stat. 69 (2015) 371, section 3.5.
    """
    if drawn is None:
        return Estimate(value)
    from scipy.stats import norm
    from scipy.stats import t as student

    outer = math.sqrt(repeats / (repeats - 1)) * student.ppf((1 - CONFIDENCE) / 2, repeats - 1)
    tail = float(norm.cdf(outer))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _hours(series: Series, place: int, nodes_known: bool) -> float:
    nodes = series.nodes[place]
    count = nodes if nodes_known and nodes is not None else int(series.ranks[place])
    if series.unit != WORK_PER_S:
        seconds = _MILLION / float(series.rates[place].mean())
    else:
        times = series.times_s[place]
        assert times is not None  # noqa: S101 - work that is not counted is known by its time
        seconds = float(times.mean()) / (int(series.ranks[place]) if series.scaling == "weak" else 1)
    return count * seconds / _SECONDS_PER_HOUR
