"""Energies of the elements by least squares, and what they leave of samples that they were not fitted to.

    minimise  sum_n (y_n - b - sum_e f_ne d_e)^2 + lambda sum_e d_e^2,    r_e = b + d_e

| symbol | here |
|---|---|
| y_n | value of sample n, of an extensive target per atom |
| f_ne | part of the atoms of sample n that are of element e; the parts of a sample add up to 1 |
| r_e | energy of element e, in the unit of y |
| lambda | one of `RIDGES`, times the largest sum_n f_ne^2 |
| h_n | 1/N + c_n^T (C^T C + lambda)^-1 c_n with rows c_n = f_n - mean(f) of C: the leverage of sample n |

The residual of a sample that all others are fitted without is (y_n - fit_n) / (1 - h_n), exactly. The lambda with the
least sum of their squares is taken, and their root mean square is the deviation that is left: where samples are few,
the residuals of the fit itself would come near zero, whatever the target. If no lambda does better than the mean of the
other samples does, all energies are mean(y).

The ridge gives elements that no sample has the mean of the energies of the others, and shares the energy of elements
that come in one ratio only between them. Sums go sample by sample, in the order of the samples, in one process.

Source: D. M. Allen, Technometrics 16, 125 (1974); T. Hastie, R. Tibshirani, J. Friedman, The Elements of Statistical
Learning, 2nd ed., 3.4.1 and 7.10.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from matsci_hpc.loading.compositions import Compositions
from matsci_hpc.structure import MAX_ATOMIC_NUMBER

RIDGES = (1e-8, *(10 ** (power / 2) for power in range(-10, 3)))
"""The first is too small to be seen where elements can be told apart."""
ENOUGH = 3
"""Samples for each element below which left-out errors are too few to tell a weak ridge from a lucky one."""
FIRM = 0.02
"""Least of `RIDGES` that is taken of so few samples."""
NOTHING_LEFT = 1e-6
"""Deviation, in parts of that of y, below which what is left counts as rounding."""
Floats = NDArray[np.float64]


Blocks = Callable[[], Iterable[Compositions]]


@dataclass(frozen=True, slots=True)
class ReferenceFit:
    """A fit.

    Attributes:
        samples: that it is made of.
        references: float64 [119] by atomic number.
        elements: bool [119], those that some sample has.
        value_mean, value_std: of y.
        mean: of what the references leave of y.
        std: root mean square of what they leave of samples that they are not fitted to.
        ridge: the one of `RIDGES` that is taken; None where no references are.
    """

    samples: int
    references: Floats
    elements: NDArray[np.bool_]
    value_mean: float
    value_std: float
    mean: float
    std: float
    ridge: float | None


@dataclass(frozen=True, slots=True)
class _Sums:
    """Over all samples; values y are taken from the first one, so that squares lose no digits to their size."""

    samples: int
    first: float
    centre: float
    variance: float
    parts: Floats
    gram: Floats
    moment: Floats
    elements: NDArray[np.bool_]


def fit_references(blocks: Blocks, *, extensive: bool, references: bool = True) -> ReferenceFit:
    """Fit the energies of the elements.

    Args:
        blocks: gives the samples, at least one; called twice where references are fitted, so that no more than a block
            of them is in memory.
        extensive: whether values are divided by the number of atoms.
        references: whether to fit at all; if not, all energies are zero, and nothing is taken off.
    """
    sums = _sums(blocks(), extensive)
    count, value_mean, value_std = sums.samples, sums.first + sums.centre, float(np.sqrt(sums.variance))
    if not references:
        none = np.zeros_like(sums.parts)
        return ReferenceFit(count, none, sums.elements, value_mean, value_std, value_mean, value_std, None)
    mean_parts = sums.parts / count
    of_modes, modes = linalg.eigh(sums.gram - count * np.outer(mean_parts, mean_parts))
    ridges = np.array(RIDGES) * sums.gram.diagonal().max()
    shrunk = 1 / (np.maximum(of_modes, 0)[:, None] + ridges)  # [modes, ridges]
    along = (modes.T @ (sums.moment - sums.centre * sums.parts))[:, None] * shrunk
    left = _left_out(blocks(), sums, modes, shrunk, along, extensive=extensive)
    if count < ENOUGH * sums.elements.sum():
        left[np.array(RIDGES) < FIRM] = np.inf
    best = int(np.argmin(left))
    # The mean of all others misses a sample by n / (n - 1) of what the mean of all does.
    if count == 1 or not left[best] < sums.variance * (count / (count - 1)) ** 2:
        same = np.full_like(sums.parts, value_mean)
        return ReferenceFit(count, same, sums.elements, value_mean, value_std, 0.0, value_std, None)
    d = modes @ along[:, best]
    energies = value_mean - float(mean_parts @ d) + d
    std = float(np.sqrt(left[best]))
    if std < NOTHING_LEFT * value_std:
        std = value_std
    return ReferenceFit(count, energies, sums.elements, value_mean, value_std, 0.0, std, RIDGES[best])


def _values(block: Compositions, extensive: bool) -> Floats:
    return block.values / block.atoms if extensive else block.values


def _sums(blocks: Iterable[Compositions], extensive: bool) -> _Sums:
    width = MAX_ATOMIC_NUMBER + 1
    gram, moment, total = np.zeros((width, width)), np.zeros(width), np.zeros(width)
    samples, first, of_values, of_squares = 0, 0.0, 0.0, 0.0
    elements = np.zeros(width, dtype=bool)
    for block in blocks:
        y = _values(block, extensive)
        if samples == 0:
            first = float(y[0])
        y = y - first
        parts = sparse.csr_array(block.counts / block.atoms[:, None])
        gram += (parts.T @ parts).toarray()
        moment += parts.T @ y
        total += parts.sum(axis=0)
        samples += len(y)
        of_values += float(y.sum())
        of_squares += float(np.square(y).sum())
        elements |= block.counts.any(axis=0)
    centre = of_values / samples
    variance = max(of_squares / samples - centre**2, 0.0)
    return _Sums(samples, first, centre, variance, total, gram, moment, elements)


def _left_out(
    blocks: Iterable[Compositions], sums: _Sums, modes: Floats, shrunk: Floats, along: Floats, *, extensive: bool
) -> Floats:
    """Mean square of the residuals of samples left out, for each ridge.

    Args:
        blocks: the samples.
        sums: over them.
        modes: eigenvectors of C^T C in columns: [119, 119].
        shrunk: inverse eigenvalues with the ridge: [119, ridges].
        along: the solutions d along the modes: [119, ridges].
        extensive: as of `fit_references`.
    """
    squares = np.zeros(shrunk.shape[1])
    for block in blocks:
        y = _values(block, extensive) - sums.first - sums.centre
        rows = (block.counts / block.atoms[:, None] - sums.parts / sums.samples) @ modes
        leverage = 1 / sums.samples + np.square(rows) @ shrunk
        residual = y[:, None] - rows @ along
        squares += np.square(residual / np.maximum(1 - leverage, np.finfo(float).eps)).sum(axis=0)
    mean_squares: Floats = squares / sums.samples
    return mean_squares
