"""How alike the gradients of neighbouring steps are.

    rho_l = sum_t <y_t, y_(t-l)> / sqrt(sum_t |y_t|^2  sum_t |y_(t-l)|^2),    l = 1..L

over the steps since the last record, with y_t the projected gradient of step t. It is 0 where gradients are
independent with mean zero, phi^l for a process g_t = phi g_(t-1) + noise, and never above 1. The mean is not taken
off: a gradient that keeps its direction is what moves Adam's ratio to -1 and +1.
"""

import torch
from torch import Tensor


class Autocorrelation:
    """Adds up products of projected gradients.

    Args:
        lags: L, the most steps between two gradients.
        dimension: of the projections.
        device: of the projections.
    """

    def __init__(self, lags: int, dimension: int, device: torch.device | str = "cpu") -> None:
        self.lags = lags
        self._past = torch.zeros((lags, dimension), dtype=torch.float32, device=device)  # the newest first
        self._known = 0
        self._sums = torch.zeros((3, lags), dtype=torch.float64, device=device)

    def add(self, projected: Tensor) -> None:
        """The next step's projected gradient, float32 [dimension]."""
        y = projected.double()
        past = self._past.double()
        known = (torch.arange(self.lags, device=past.device) < self._known).double()
        self._sums += torch.stack([past @ y, known * y.square().sum(), past.square().sum(1)])
        self._past = torch.cat([projected.unsqueeze(0), self._past[:-1]])
        self._known = min(self._known + 1, self.lags)

    def last(self) -> float | None:
        """Cosine of the angle between the newest two gradients; None before there are two."""
        if self._known < 2 or self.lags < 2:
            return None
        new, old = self._past[0].double(), self._past[1].double()
        norm = float(new.norm() * old.norm())
        return float(new @ old) / norm if norm > 0 else None

    def correlations(self) -> list[float | None]:
        """Rho at lags 1 to L since the last call, None where no two steps lie so far apart; begins anew."""
        products, new, old = self._sums.cpu().clone()
        self._sums.zero_()
        scales = (new * old).sqrt()
        return [float(product / scale) if scale > 0 else None for product, scale in zip(products, scales, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        return {"past": self._past, "known": torch.tensor(self._known), "sums": self._sums}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; one of another number of lags is left aside."""
        if state["past"].shape != self._past.shape:
            return
        self._past.copy_(state["past"])
        self._sums.copy_(state["sums"])
        self._known = int(state["known"])
