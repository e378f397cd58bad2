"""The bound on the norm of the gradients: a number, or a quantile of the norms of the last steps.

The quantile follows a run whose gradients shrink a thousandfold, as no fixed bound does (AutoClip: Seetharaman et al.
2020, arXiv:2007.14469; here over a window instead of all steps).
"""

import math
from collections import deque

import numpy as np
import torch
from torch import Tensor

from matsci_hpc.config.train import Optimizer

LEAST = 10
"""Norms that must be known before a quantile of them counts."""


class ClipBound:
    """The largest norm that is let through.

    Args:
        config: of the optimiser.
    """

    def __init__(self, config: Optimizer) -> None:
        self._fixed = config.clip_norm
        self._quantile = config.clip_quantile
        self._norms: deque[float] = deque(maxlen=config.clip_window if config.clip_quantile is not None else 0)

    def bound(self, norm: float) -> float | None:
        """The bound for a step whose gradient has this norm, which counts as the newest; None for none."""
        bounds = [] if self._fixed is None else [self._fixed]
        if self._quantile is not None:
            if math.isfinite(norm) and norm > 0:  # a batch without any target says nothing of usual norms
                self._norms.append(norm)
            if len(self._norms) >= LEAST:
                bounds.append(float(np.quantile(self._norms, self._quantile)))
        return min(bounds, default=None)

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        return {"norms": torch.tensor(list(self._norms), dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._norms = deque(state["norms"].tolist(), maxlen=self._norms.maxlen)
