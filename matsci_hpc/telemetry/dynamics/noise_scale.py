"""The gradient noise scale: the batch size at which noise and signal of a gradient are alike.

A gradient of b samples has E |g|^2 = |G|^2 + tr(S) / b, with G the gradient of the loss itself and S the covariance of
the gradient of one sample. From n parts of b_i samples with mean gradients g_i, and their mean g = sum b_i g_i / B over
all B = sum b_i samples,

    tr(S)_est = (sum b_i |g_i|^2 - B |g|^2) / (n - 1)
    |G|^2_est = |g|^2 - tr(S)_est / B
    B_simple  = tr(S) / |G|^2

Both estimates are unbiased for any b_i. For equal parts they are those of McCandlish et al. 2018 (arXiv:1812.06162,
appendix A.1) with B_small = b_i and B_big = B. One step's estimates are noisy and |G|^2_est may be negative, so both
are averaged over steps before they are divided, as there.

A rank's part of the summed gradient is b_i g_i / B, so that b_i |g_i|^2 = B^2 |part_i|^2 / b_i.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DECAY = 0.9
"""Weight that the averages keep from one estimate to the next."""


@dataclass(frozen=True, slots=True)
class NoiseEstimate:
    """Of one step.

    Attributes:
        parts: n.
        trace: tr(S)_est.
        square: |G|^2_est.
    """

    parts: int
    trace: float
    square: float


def weighted_square(part_square: float, graphs: int, all_graphs: int) -> float:
    """b_i |g_i|^2 of a part whose share of the summed gradient has this square norm; 0 for an empty part."""
    return all_graphs**2 * part_square / graphs if graphs else 0.0


def estimate_noise(weighted: float, parts: int, square: float, all_graphs: int) -> NoiseEstimate | None:
    """The estimates of one step; None if there are not two parts.

    Args:
        weighted: sum of `weighted_square` over the parts.
        parts: those that are not empty.
        square: |g|^2 of the gradient of the whole batch.
        all_graphs: B.
    """
    if parts < 2:
        return None
    trace = (weighted - all_graphs * square) / (parts - 1)
    return NoiseEstimate(parts, trace, square - trace / all_graphs)


class NoiseScale:
    """Averages estimates over the records of a run."""

    def __init__(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)  # of weights, traces and squares

    def add(self, estimate: NoiseEstimate) -> None:
        """One more estimate."""
        self._sums = DECAY * self._sums + torch.tensor([1.0, estimate.trace, estimate.square], dtype=torch.float64)

    @property
    def value(self) -> float | None:
        """B_simple in graphs; None where the averaged signal is not above zero yet."""
        _, trace, square = self._sums.tolist()
        return trace / square if square > 0 else None

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        return {"sums": self._sums}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._sums = state["sums"].clone()
