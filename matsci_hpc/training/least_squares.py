"""Energies of the elements by least squares, with the exact mean and deviation of what they leave.

    minimise  sum_n (y_n - mean(y) - sum_e f_ne d_e)^2 + lambda sum_e d_e^2,    r_e = mean(y) + d_e

| symbol | here |
|---|---|
| y_n | value of sample n, of an extensive target per atom |
| f_ne | part of the atoms of sample n that are of element e; the parts of a sample add up to 1 |
| r_e | energy of element e, in the unit of y |
| lambda | `RIDGE` times the largest sum_n f_ne^2: too small to be seen where elements can be told apart |

The ridge sets elements that no sample has to mean(y), and shares the energy of elements that come in one ratio only
between them. The sums are added up sample by sample, in the order of the samples, by one process.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from matsci_hpc.loading.compositions import Compositions
from matsci_hpc.structure import MAX_ATOMIC_NUMBER

RIDGE = 1e-8
NOTHING_LEFT = 1e-6
"""Deviation, in parts of that of y, below which what is left counts as rounding."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReferenceFit:
    """A fit.

    Attributes:
        samples: that it is made of.
        references: float64 [119] by atomic number.
        elements: bool [119], those that some sample has.
        value_mean, value_std: of y.
        mean, std: of what the references leave of y.
    """

    samples: int
    references: Floats
    elements: NDArray[np.bool_]
    value_mean: float
    value_std: float
    mean: float
    std: float


def fit_references(blocks: Iterable[Compositions], *, extensive: bool, references: bool = True) -> ReferenceFit:
    """Fit the energies of the elements.

    Args:
        blocks: samples, at least one.
        extensive: whether values are divided by the number of atoms.
        references: whether to fit at all; if not, all energies are zero, and nothing is taken off.
    """
    width = MAX_ATOMIC_NUMBER + 1
    gram, moment, total = np.zeros((width, width)), np.zeros(width), np.zeros(width)
    samples, first, of_values, of_squares = 0, 0.0, 0.0, 0.0
    elements = np.zeros(width, dtype=bool)
    for block in blocks:
        y = block.values / block.atoms if extensive else block.values
        if samples == 0:
            first = float(y[0])  # near the mean, so that sums of squares lose no digits to its size
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
    value_mean, value_std = first + centre, float(np.sqrt(variance))
    if not references:
        return ReferenceFit(samples, np.zeros(width), elements, value_mean, value_std, value_mean, value_std)
    moment -= centre * total
    ridge = RIDGE * float(gram.diagonal().max()) * np.eye(width)
    d = linalg.solve(gram + ridge, moment, assume_a="pos")
    mean = -float(total @ d) / samples
    left = variance + float(d @ gram @ d - 2 * d @ moment) / samples - mean**2
    std = float(np.sqrt(max(left, 0.0)))
    if std < NOTHING_LEFT * value_std:
        std = value_std
    return ReferenceFit(samples, value_mean + d, elements, value_mean, value_std, mean, std)
