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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Curve = Callable[[Floats], tuple[Floats, Floats]]
"""From parameters [k] to the values f [m] and their derivatives [m, k]."""

CONFIDENCE = 0.95
NO_DIFFERENCE = 2.0
"""Of two fits whose criterion differs by less, neither is to be preferred (Burnham and Anderson 2002, section 2.6)."""
_STEPS, _GROWTH = 60, 1.7
"""How often and by which factor the search for the end of an interval steps on: far beyond any number of a machine."""
_TOLERANCE = 1e-12
_EXACT = 1e-7
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
    """[k], from the slopes at the solution as if there were no bounds; None without `freedom`."""
    intervals: tuple[Interval, ...] | None
    """k of them; None without `freedom`."""
    residuals: Floats
    """[m], log of measured over fitted."""
    covariance: Floats | None
    """[k, k], in the same way."""
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

    def solve(self, start: Floats, profiled: Sequence[int] | None = None) -> Fit:
        """Fit from a first guess inside the bounds.

        Args:
            start: [k].
            profiled: places of the parameters that get an interval, the others get one that is open; None: all.
        """
        values, residuals, slopes = self._minimum(start, np.ones(len(start), dtype=bool))
        freedom = len(self.measured) - len(start)
        covariance = self._covariance(residuals, slopes, freedom) if freedom > 0 else None
        intervals = None
        if covariance is not None:
            places = range(len(values)) if profiled is None else profiled
            intervals = self._intervals(values, residuals, covariance, freedom, places)
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
            # In units of the first guess, so that the solver's tolerances mean the same for microseconds and for GB/s.
            unit = np.where(values[free] > 0, values[free], 1.0)
            lower, upper = self.lower[free] / unit, self.upper[free] / unit
            found = least_squares(
                lambda some: at(some * unit)[0],
                np.clip(values[free] / unit, lower, upper),
                jac=lambda some: at(some * unit)[1] * unit,
                bounds=(lower, upper),
                x_scale="jac",
                xtol=_TOLERANCE,
                ftol=_TOLERANCE,
                gtol=_TOLERANCE,
            )
            values[free] = _at_bounds(found.x, found.active_mask, lower, upper) * unit
        curve, slopes = self.curve(values)
        return values, logs - np.log(curve), slopes / curve[:, None]

    def _covariance(self, residuals: Floats, slopes: Floats, freedom: int) -> Floats:
        """Of all parameters: one that stands at its bound is no better known for it."""
        scale = np.linalg.norm(slopes, axis=0)
        scale[scale == 0] = 1.0
        inverse = np.linalg.pinv((slopes / scale).T @ (slopes / scale), hermitian=True)
        return np.asarray(inverse / np.outer(scale, scale) * float(residuals @ residuals) / freedom)

    def _intervals(
        self, values: Floats, residuals: Floats, covariance: Floats, freedom: int, places: Sequence[int]
    ) -> tuple[Interval, ...]:
        from scipy.stats import t as student

        least = float(residuals @ residuals)
        quantile = float(student.ppf((1 + CONFIDENCE) / 2, freedom))
        if math.sqrt(least / freedom) < _EXACT:
            return tuple(Interval(float(value), float(value)) for value in values)
        most = least * (1 + quantile**2 / freedom)
        steps = quantile * _roots(covariance)
        made = [Interval(float(low), float(high)) for low, high in zip(self.lower, self.upper, strict=True)]
        for place in places:
            low, high = (self._end(values, place, sign, most, steps[place]) for sign in (-1, +1))
            made[place] = Interval(low, high)
        return tuple(made)

    def _end(self, values: Floats, place: int, sign: int, most: float, step: float) -> float:
        """Where the profile of one parameter reaches `most`, going up or down, or its bound."""
        from scipy.optimize import brentq

        bound = (self.upper if sign > 0 else self.lower)[place]
        best = float(values[place])
        if best == bound:
            return best
        free = np.arange(len(values)) != place
        near = values.copy()

        @cache  # each value from where the search stood first, so that one value has one answer
        def above(value: float) -> float:
            start = near.copy()
            start[place] = value
            squares, found = self.smallest_squares(start, free)
            near[free] = found[free]
            return squares - most

        if step <= 0:  # the curve does not depend on it
            return float(bound)
        inside, outside = best, best + sign * step
        for _ in range(_STEPS):
            if sign * (outside - bound) >= 0:
                if above(float(bound)) <= 0:
                    return float(bound)
                outside = bound
                break
            if above(outside) > 0:
                break
            inside, step = outside, step * _GROWTH
            outside += sign * step
        else:
            return math.inf * sign
        if above(inside) >= 0:  # without noise, rounding decides
            return inside
        if above(outside) <= 0:
            return outside
        return float(brentq(above, inside, outside, rtol=1e-6, xtol=1e-300))


def _at_bounds(values: Floats, active: NDArray[np.int64], lower: Floats, upper: Floats) -> Floats:
    """The solver stops a hair inside of a bound; it is meant to be on it."""
    return np.where(active < 0, lower, np.where(active > 0, upper, values))


def _roots(covariance: Floats) -> Floats:
    return np.sqrt(np.maximum(np.diag(covariance), 0.0))
