"""Least squares of logarithms with bounds, and intervals of the parameters from the profile of the sum of squares.

Times and rates vary by a part of themselves, so it is the logarithm of what is measured that has errors of one size s:

    log y_i = log f(x_i; theta) + e_i,    e_i of variance s^2

| symbol | variable | meaning |
|---|---|---|
| theta_hat | `values` | the parameters of the smallest sum of squares S |
| nu | `freedom` | measurements less parameters |
| s^2 | `spread ** 2` | S(theta_hat) / nu |

A value c of one parameter is inside its interval of 95 % if S, made as small as the other parameters allow with this
one held at c, is at most S(theta_hat) (1 + t^2 / nu), t being the quantile 97.5 % of Student's distribution with nu
degrees of freedom. For a straight line this is the usual interval; for a curve it follows the curvature, and a bound
cuts it off.

Source: D. M. Bates, D. G. Watts, Nonlinear Regression Analysis and Its Applications, Wiley 1988, chapter 6.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Callable[[Floats], tuple[Floats, Floats]]
"""From parameters [k] to the values f [m] and their derivatives [m, k]."""

_STEPS, _GROWTH = 60, 1.7
"""How often and by which factor the search for the end of an interval steps on: far beyond any number of a machine."""
_EXACT = 1e-9
"""A spread this small is rounding: data without noise."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval; `high` may be infinite."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value is inside."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Fit:
    """Parameters of the smallest sum of squares."""

    values: Floats
    """[k]."""
    standard_errors: Floats | None
    """[k], from the slope at the solution, NaN where a parameter stands at its bound; None without `freedom`."""
    intervals: tuple[Interval, ...] | None
    """k of them; None without `freedom`."""
    residuals: Floats
    """[m], log of measured over fitted."""
    covariance: Floats | None
    """[k, k], 0 for a parameter that stands at its bound; None without `freedom`."""
    freedom: int

    @property
    def squares(self) -> float:
        """Sum of squared residuals."""
        return float(self.residuals @ self.residuals)

    @property
    def spread(self) -> float | None:
        """Standard deviation of one measurement from the curve, as a part of it; None without `freedom`."""
        return math.sqrt(self.squares / self.freedom) if self.freedom > 0 else None

    @property
    def aicc(self) -> float | None:
        """Akaike's criterion with the correction for few measurements; of two laws the smaller one is to be preferred.

        n ln(S / n) + 2 K + 2 K (K + 1) / (n - K - 1), where K counts the parameters and the spread. None where the
        correction has no value: n - K - 1 must be positive.

        Source: C. M. Hurvich, C.-L. Tsai, Biometrika 76 (1989) 297.
        """
        n, K = len(self.residuals), len(self.values) + 1
        if n - K - 1 <= 0:
            return None
        return n * math.log(max(self.squares / n, _EXACT**2)) + 2 * K + 2 * K * (K + 1) / (n - K - 1)


@dataclass(frozen=True)
class Problem:
    """What is to be fitted."""

    curve: Curve
    measured: Floats
    """[m], positive."""
    lower: Floats
    """[k]."""
    upper: Floats
    """[k]."""

    def solve(self, start: Floats, confidence: float | None = 0.95) -> Fit:
        """Fit from a first guess inside the bounds.

        Args:
            start: [k].
            confidence: of the intervals; None: make none.
        """
        values, residuals, slopes = self._minimum(start, np.ones(len(start), dtype=bool))
        freedom = len(self.measured) - len(start)
        covariance = self._covariance(values, residuals, slopes, freedom) if freedom > 0 else None
        intervals = None
        if covariance is not None and confidence is not None:
            intervals = self._intervals(values, residuals, covariance, freedom, confidence)
        return Fit(
            values=values,
            standard_errors=None if covariance is None else _roots(covariance),
            intervals=intervals,
            residuals=residuals,
            covariance=covariance,
            freedom=freedom,
        )

    def smallest_squares(self, start: Floats, free: NDArray[np.bool_]) -> tuple[float, Floats]:
        """The smallest sum of squares when only some parameters may move, and the parameters there."""
        values, residuals, _ = self._minimum(start, free)
        return float(residuals @ residuals), values

    def _minimum(self, start: Floats, free: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Parameters [k], residuals [m] and slopes of the logarithm [m, k]."""
        from scipy.optimize import least_squares

        values = np.array(start, dtype=np.float64)
        logs = np.log(self.measured)

        def at(some: Floats) -> tuple[Floats, Floats]:
            whole = values.copy()
            whole[free] = some
            curve, slopes = self.curve(whole)
            curve = np.maximum(curve, np.finfo(np.float64).tiny)
            return logs - np.log(curve), -slopes[:, free] / curve[:, None]

        if free.any():
            lower, upper = self.lower[free], self.upper[free]
            found = least_squares(
                lambda some: at(some)[0],
                np.clip(values[free], lower, upper),
                jac=lambda some: at(some)[1],
                bounds=(lower, upper),
                x_scale="jac",
                xtol=1e-12,
                ftol=1e-12,
                gtol=1e-12,
            )
            values[free] = _at_bounds(found.x, found.active_mask, lower, upper)
        curve, slopes = self.curve(values)
        return values, logs - np.log(curve), slopes / curve[:, None]

    def _covariance(self, values: Floats, residuals: Floats, slopes: Floats, freedom: int) -> Floats:
        inside = (values > self.lower) & (values < self.upper)
        covariance = np.zeros((len(values), len(values)))
        if inside.any():
            scale = np.linalg.norm(slopes[:, inside], axis=0)
            scale[scale == 0] = 1.0
            normal = (slopes[:, inside] / scale).T @ (slopes[:, inside] / scale)
            inverse = np.linalg.pinv(normal) / np.outer(scale, scale)
            covariance[np.ix_(inside, inside)] = inverse * float(residuals @ residuals) / freedom
        return covariance

    def _intervals(
        self, values: Floats, residuals: Floats, covariance: Floats, freedom: int, confidence: float
    ) -> tuple[Interval, ...]:
        from scipy.stats import t as student

        least = float(residuals @ residuals)
        quantile = float(student.ppf((1 + confidence) / 2, freedom))
        if math.sqrt(least / freedom) < _EXACT:
            return tuple(Interval(float(value), float(value)) for value in values)
        most = least * (1 + quantile**2 / freedom)
        errors = _roots(covariance)
        return tuple(
            Interval(
                self._end(values, place, -1, most, quantile * errors[place]),
                self._end(values, place, +1, most, quantile * errors[place]),
            )
            for place in range(len(values))
        )

    def _end(self, values: Floats, place: int, sign: int, most: float, step: float) -> float:
        """Where the profile of one parameter reaches `most`, going up or down, or its bound."""
        from scipy.optimize import brentq

        bound = (self.upper if sign > 0 else self.lower)[place]
        best = float(values[place])
        if best == bound:
            return best
        free = np.arange(len(values)) != place
        near = values.copy()

        def above(value: float) -> float:
            start = near.copy()
            start[place] = value
            squares, found = self.smallest_squares(start, free)
            near[free] = found[free]
            return squares - most

        if not math.isfinite(step) or step <= 0:  # it stands at the other bound
            step = 1e-3 * (abs(best) or 1.0 / max(1.0, float(np.abs(self.curve(values)[1][:, place]).max())))
        inside, outside = best, best + sign * step
        for _ in range(_STEPS):
            if sign * (outside - bound) >= 0:
                if above(bound) <= 0 if math.isfinite(bound) else False:
                    return float(bound)
                outside = bound
                break
            if above(outside) > 0:
                break
            inside, step = outside, step * _GROWTH
            outside += sign * step
        else:
            return math.inf * sign
        return float(brentq(above, inside, outside, rtol=1e-6, xtol=1e-300))


def _at_bounds(values: Floats, active: NDArray[np.int64], lower: Floats, upper: Floats) -> Floats:
    """The solver stops a hair inside of a bound; it is meant to be on it."""
    return np.where(active < 0, lower, np.where(active > 0, upper, values))


def _roots(covariance: Floats) -> Floats:
    variances = np.diag(covariance)
    return np.sqrt(np.where(variances > 0, variances, np.nan))
