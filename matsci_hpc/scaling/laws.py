"""Laws of scaling, fitted to a series: Amdahl, Gustafson, and Gunther's universal scalability law.

Throughput X of p ranks:

| law | X(p) | parameters |
|---|---|---|
| Amdahl (1967) | lambda p / (1 + sigma (p - 1)) | sigma: share of the work of one rank that is serial |
| Gustafson (1988) | lambda (p - sigma (p - 1)) | sigma: share of the time of p ranks that is serial |
| universal (Gunther 1993) | lambda p / (1 + sigma (p - 1) + kappa p (p - 1)) | sigma: waiting; kappa: exchange |

| symbol | variable | unit |
|---|---|---|
| lambda | `rate` | throughput of one rank, samples/s or work/s |
| sigma, kappa | `sigma`, `kappa` | |

Amdahl's law is the universal one with kappa = 0; it means strong scaling, Gustafson's means weak scaling. The universal
law has a largest throughput, at p = sqrt((1 - sigma) / kappa). Every repeat is one measurement; all are fitted by least
squares of relative errors (`fitting`).

Sources: G. M. Amdahl, AFIPS Conf. Proc. 30 (1967) 483; J. L. Gustafson, Commun. ACM 31 (1988) 532; N. J. Gunther,
Guerrilla Capacity Planning, Springer 2007, chapters 4 and 5.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from matsci_hpc.scaling.fitting import NO_DIFFERENCE, Fit, Floats, Interval, Problem
from matsci_hpc.scaling.table import Scaling, Series

Law = Literal["amdahl", "gustafson", "universal"]
LAWS: tuple[Law, ...] = get_args(Law)
TITLES: dict[Law, str] = {"amdahl": "Amdahl", "gustafson": "Gustafson", "universal": "universal scalability law"}
SYMBOLS: dict[Law, tuple[str, ...]] = {
    "amdahl": ("rate", "sigma"),
    "gustafson": ("rate", "sigma"),
    "universal": ("rate", "sigma", "kappa"),
}
_MOST_EXPONENT = 300.0
"""A factor of so much says that nothing is known, and is still a number."""
_USUAL: dict[Scaling, Law] = {"strong": "amdahl", "weak": "gustafson"}
_UPPER = {"rate": np.inf, "sigma": 1.0, "kappa": np.inf}


@dataclass(frozen=True)
class Prediction:
    """Throughput that a law expects."""

    ranks: int
    throughput: float
    low: float | None
    """Of the interval in which one more measurement lies with 95 %; None without enough measurements."""
    high: float | None


@dataclass(frozen=True)
class HeldOut:
    """The largest rank count, predicted from the others."""

    prediction: Prediction
    measured: float
    """Mean of its repeats."""

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.prediction.throughput / self.measured - 1


@dataclass(frozen=True)
class LawFit:
    """A law and the parameters that fit a series best."""

    law: Law
    fit: Fit
    """Its values are in the order of `SYMBOLS`."""
    held_out: HeldOut | None
    """None if the others are too few."""
    peak: Interval | None
    """Of the rank count of largest throughput, for the universal law, with 95 %."""

    @property
    def parameters(self) -> dict[str, float]:
        """By symbol."""
        return dict(zip(SYMBOLS[self.law], self.fit.values.tolist(), strict=True))

    @property
    def intervals(self) -> dict[str, Interval]:
        """By symbol; empty without enough measurements."""
        return dict(zip(SYMBOLS[self.law], self.fit.intervals or (), strict=False))

    @property
    def peak_ranks(self) -> float | None:
        """Where the universal law has its largest throughput, on 1 rank at least: infinite if it never falls.

        None for other laws.
        """
        if self.law != "universal":
            return None
        sigma, kappa = self.parameters["sigma"], self.parameters["kappa"]
        return max(1.0, math.sqrt(max(0.0, 1 - sigma) / kappa)) if kappa > 0 else math.inf

    def throughput(self, ranks: ArrayLike) -> Floats:
        """What the law says, in the unit of the series; shape of `ranks`."""
        counts = np.asarray(ranks, dtype=np.float64)
        return curve(self.law, counts.ravel(), self.fit.values)[0].reshape(counts.shape)

    def predict(self, ranks: int) -> Prediction:
        """What one more measurement on so many ranks is expected to give.

        The interval follows from the slopes of the law at the fitted parameters and the spread of the measurements. It
        assumes that the law holds there.
        """
        return _predict(self.law, self.fit, ranks)


@dataclass(frozen=True)
class Laws:
    """All laws on one series."""

    fits: tuple[LawFit, ...]
    """By Akaike's criterion, the best first; those without one last."""
    not_fitted: dict[Law, str]
    """And why."""
    scaling: Scaling | None = None
    """Of the series."""

    @property
    def preferred(self) -> LawFit | None:
        """The law that the criterion prefers to all others; None where it does not tell them apart."""
        return self._near[0] if len(self._near) == 1 < len(self.fits) else None

    @property
    def best(self) -> LawFit | None:
        """The law to draw: of those that the criterion does not tell apart, the one meant for this scaling."""
        usual = [fit for fit in self._near if self.scaling is not None and fit.law == _USUAL[self.scaling]]
        return next(iter([*usual, *self._near]), None)

    @property
    def _near(self) -> list[LawFit]:
        """Laws whose criterion is the least or about that; all of them where there is none."""
        differences = self.differences()
        if all(each is None for each in differences):
            return list(self.fits)
        pairs = zip(self.fits, differences, strict=True)
        return [fit for fit, each in pairs if each is not None and each < NO_DIFFERENCE]

    def differences(self) -> tuple[float | None, ...]:
        """Of each fit's criterion from the smallest one; less than 2 is no difference."""
        known = [fit.fit.aicc for fit in self.fits]
        least = min((each for each in known if each is not None), default=0.0)
        return tuple(None if each is None else each - least for each in known)


def fit_laws(series: Series) -> Laws:
    """Fit every law that the series has enough rank counts for."""
    fits, not_fitted = [], {}
    for law in LAWS:
        wanted = len(SYMBOLS[law])
        if len(series.ranks) < wanted:
            not_fitted[law] = f"needs {wanted} rank counts, and {len(series.ranks)} were measured"
        else:
            fits.append(fit_law(law, series))
    fits.sort(key=lambda each: (each.fit.aicc is None, each.fit.aicc or 0.0))
    return Laws(tuple(fits), not_fitted, series.scaling)


def curve(law: Law, ranks: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Throughput [m] and its derivatives by the parameters [m, k].

    Args:
        law: which one.
        ranks: p, [m].
        values: the parameters in the order of `SYMBOLS`, [k].
    """
    p, rate, sigma = ranks, values[0], values[1]
    if law == "gustafson":
        capacity = p - sigma * (p - 1)
        return rate * capacity, np.stack([capacity, -rate * (p - 1)], axis=1)
    kappa = values[2] if law == "universal" else 0.0
    slowing = 1 + sigma * (p - 1) + kappa * p * (p - 1)
    capacity = p / slowing
    slopes = [capacity, -rate * capacity * (p - 1) / slowing]
    if law == "universal":
        slopes.append(-rate * capacity * p * (p - 1) / slowing)
    return rate * capacity, np.stack(slopes, axis=1)


def fit_law(law: Law, series: Series) -> LawFit:
    """Fit one law.

    Args:
        law: which one.
        series: with as many rank counts as the law has parameters, at least.
    """
    problem, ranks = _problem(law, series)
    fit = problem.solve(_start(law, ranks, problem.measured))
    peak = _peak(fit, ranks, problem) if law == "universal" else None
    return LawFit(law, fit, _held_out(law, series), peak)


def _problem(law: Law, series: Series) -> tuple[Problem, Floats]:
    ranks = np.repeat(series.ranks.astype(np.float64), series.repeats)
    rates = np.concatenate(series.rates)
    upper = np.array([_UPPER[symbol] for symbol in SYMBOLS[law]])
    lower = np.zeros(len(upper))
    lower[0] = 0.1 * float((rates / ranks).max())  # no law makes several ranks faster than as many single ones
    return Problem(lambda values: curve(law, ranks, values), rates, lower, upper), ranks


def _start(law: Law, ranks: Floats, rates: Floats) -> Floats:
    """Amdahl's and the universal law are lines in p / X, Gustafson's is one in X: solved with nothing negative."""
    from scipy.optimize import nnls

    if law == "gustafson":  # X = lambda (1 - sigma) p + lambda sigma
        slope, offset = nnls(np.stack([ranks, np.ones_like(ranks)], axis=1) / rates[:, None], np.ones_like(rates))[0]
        return np.array([slope + offset, np.clip(offset / (slope + offset), 1e-3, 0.999)])
    times = ranks / rates
    columns = [np.ones_like(ranks), ranks - 1, ranks * (ranks - 1)][: len(SYMBOLS[law])]
    terms = np.stack(columns, axis=1) / times[:, None]
    scale = np.linalg.norm(terms, axis=0)
    parts = nnls(terms / scale, np.ones_like(rates))[0] / scale
    one = parts[0] if parts[0] > 0 else float(times.min())
    # A little away from the bounds, where the solver moves freely.
    kappas = [max(part / one, 1e-3 / float(ranks.max()) ** 2) for part in parts[2:]]
    return np.array([1 / one, np.clip(parts[1] / one, 1e-3, 0.999), *kappas])


def _peak(fit: Fit, ranks: Floats, problem: Problem) -> Interval | None:
    """Interval of the rank count of largest throughput P, from a profile with q = 1 / P^2 in the place of kappa.

    kappa = (1 - sigma) q. A q of 0 is a throughput that never falls.
    """
    rate, sigma, kappa = fit.values

    def by_peak(values: Floats) -> tuple[Floats, Floats]:
        sigma, q = values[1], values[2]
        throughput, slopes = curve("universal", ranks, np.array([values[0], sigma, (1 - sigma) * q]))
        by_kappa = slopes[:, 2]
        return throughput, np.stack([slopes[:, 0], slopes[:, 1] - q * by_kappa, (1 - sigma) * by_kappa], axis=1)

    start = np.array([rate, min(sigma, 0.999), kappa / (1 - min(sigma, 0.999))])
    found = replace(problem, curve=by_peak).solve(start, profiled=(2,)).intervals
    if found is None:
        return None
    low, high = found[2].low, found[2].high
    ends = (max(1.0, 1 / math.sqrt(end)) if end > 0 else math.inf for end in (high, low))
    return Interval(*ends)


def _predict(law: Law, fit: Fit, ranks: int) -> Prediction:
    values, slopes = curve(law, np.array([float(ranks)]), fit.values)
    if fit.covariance is None or fit.spread is None:
        return Prediction(ranks, float(values[0]), None, None)
    from scipy.stats import t as student

    relative = slopes[0] / values[0]
    error = math.sqrt(float(relative @ fit.covariance @ relative) + fit.spread**2)
    factor = math.exp(min(float(student.ppf(0.975, fit.freedom)) * error, _MOST_EXPONENT))
    return Prediction(ranks, float(values[0]), float(values[0]) / factor, float(values[0]) * factor)


def _held_out(law: Law, series: Series) -> HeldOut | None:
    if len(series.ranks) <= len(SYMBOLS[law]):
        return None
    smaller = series.part(np.arange(len(series.ranks)) < len(series.ranks) - 1)
    problem, ranks = _problem(law, smaller)
    fit = problem.solve(_start(law, ranks, problem.measured), profiled=())
    return HeldOut(_predict(law, fit, int(series.ranks[-1])), float(series.rates[-1].mean()))
