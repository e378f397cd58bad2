"""What a sample costs a rank, predicted from its size, and how a run learns a better prediction from its own steps."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matsci_hpc.loading.permutation import Numbers

TERMS = 3
"""Edges, atoms and a constant per step."""
MAX_ERROR = 0.25
"""Largest relative standard error of the fitted cost of an atom at which a fit is believed."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """Time of a sample in a training step, in units of the time of an edge.

    The default balanced 512 ranks best on real size distributions (MPtrj and Alexandria at 6 angstrom).

    Attributes:
        edge: of an edge.
        atom: of an atom.
    """

    edge: float = 1.0
    atom: float = 30.0

    def of(self, atoms: Numbers, edges: Numbers) -> NDArray[np.float64]:
        """Predicted cost of samples from their sizes, float64 [n]."""
        cost = edges.astype(np.float64)
        cost *= self.edge
        cost += self.atom * atoms.astype(np.float64)
        return cost


class CostFit:
    """Times of a rank's steps, added up so that a least-squares fit of all ranks needs one small all-reduce.

    Fitted is time = a edges + b atoms + c, over the shares that the ranks computed.

    Attributes:
        sums: float64 [14]: number of times, their sum of squares, X^T y [3] and X^T X [9], where a row of X is
            (edges / 1000, atoms / 1000, 1). Add it up over the ranks before `fit`.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(2 + TERMS + TERMS * TERMS, dtype=torch.float64)

    def add(self, atoms: int, edges: int, time_s: float) -> None:
        """Note that computing so many atoms and edges took so long."""
        row = torch.tensor([edges / 1000, atoms / 1000, 1.0], dtype=torch.float64)
        head = torch.tensor([1.0, time_s * time_s], dtype=torch.float64)
        self.sums += torch.cat([head, row * time_s, torch.outer(row, row).reshape(-1)])


def fit(sums: Tensor) -> CostModel | None:
    """The cost model that fits the times of all ranks best, with no negative term.

    Args:
        sums: `CostFit.sums`, added up over the ranks.

    Returns:
        Edges cost 1 and atoms their ratio, rounded to two digits; None where the times cannot tell, since there are
        too few of them, they are too noisy, or atoms and edges always came in the same proportion.
    """
    values = sums.numpy()
    count, squares, right = values[0], values[1], values[2 : 2 + TERMS]
    gram = values[2 + TERMS :].reshape(TERMS, TERMS)
    if count < 2 * TERMS or not np.isfinite(values).all():
        return None
    solution = _non_negative(gram, right)
    edge, atom, _ = solution
    if edge <= 0:
        return None
    residual = max(0.0, float(squares - 2 * right @ solution + solution @ gram @ solution))
    inverse = _inverse(gram)
    if inverse is None:
        return None
    covariance = residual / (count - TERMS) * inverse
    ratio = float(atom / edge)
    # Error of a quotient to first order.
    slope = np.array([-ratio, 1.0]) / edge
    error = float(np.sqrt(max(0.0, slope @ covariance[:2, :2] @ slope)))
    if error > MAX_ERROR * max(ratio, CostModel().atom / 10):
        return None
    return CostModel(1.0, float(f"{ratio:.2g}"))


def _non_negative(gram: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with no negative coefficient: the best of the few solutions that leave some terms out."""
    best, best_loss = np.zeros(TERMS), 0.0
    for kept in product((True, False), repeat=TERMS):
        mask = np.array(kept)
        inverse = _inverse(gram[np.ix_(mask, mask)]) if mask.any() else None
        if inverse is None:
            continue
        solution = np.zeros(TERMS)
        solution[mask] = inverse @ right[mask]
        loss = float(solution @ gram @ solution - 2 * right @ solution)
        if (solution >= 0).all() and loss < best_loss:
            best, best_loss = solution, loss
    return best


def _inverse(gram: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Inverse of a matrix of sums of products; None where its columns hardly differ."""
    scale = np.sqrt(np.diag(gram))
    if not (scale > 0).all():
        return None
    correlation = gram / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] < 1e-10:
        return None
    inverse: NDArray[np.float64] = np.linalg.inv(correlation) / np.outer(scale, scale)
    return inverse
