"""How alike the gradients of neighbouring steps are.

    rho_l = sum_t <y_t, y_(t-l)> / sqrt(sum_t |y_t|^2  sum_t |y_(t-l)|^2),    l = 1..L

over the steps since the last record, with y_t the projected gradient of step t, steps whose gradient is not finite
left out. It is 0 where gradients are
independent with mean zero, phi^l for a process g_t = phi g_(t-1) + noise, and never above 1. The mean is not taken
off: a gradient that keeps its direction is what moves Adam's ratio to -1 and +1.
"""

import math
from collections import deque

import torch
from torch import Tensor

AT_ONCE = 64
"""Gradients that wait until their products are added up together, which costs less than one by one."""


class Autocorrelation:
    """Adds up products of projected gradients.

    Args:
        lags: L, the most steps between two gradients.
        dimension: of the projections.
        keep: gradients that `neighbours` can look back on.
        device: of the projections.
    """

    def __init__(self, lags: int, dimension: int, keep: int = 0, device: torch.device | str = "cpu") -> None:
        self.lags = lags
        self._keep = max(lags, keep + 1)
        self._past = torch.zeros((0, dimension), dtype=torch.float32, device=device)  # the newest last
        self._waiting: list[Tensor] = []
        self._steps: deque[int] = deque(maxlen=self._keep + AT_ONCE)  # of the newest of all of these
        self._sums = torch.zeros((3, lags), dtype=torch.float64, device=device)

    def add(self, projected: Tensor, step: int) -> None:
        """The projected gradient, float32 [dimension], of a step after those before."""
        self._waiting.append(projected)
        self._steps.append(step)
        if len(self._waiting) == AT_ONCE:
            self._add_up()

    def neighbours(self, steps: int) -> dict[int, float]:
        """Cosine of the angle between the gradient of a step and that of the step before, by step, where it is known.

        Args:
            steps: how many of the newest gradients are looked at, at most `keep`.
        """
        numbers = list(self._steps)[-steps - 1 :]
        rows = self._rows()[-len(numbers) :].double() if numbers else self._past[:0]
        new, old = rows[1:], rows[:-1]
        scales = new.norm(dim=1) * old.norm(dim=1)
        cosines = torch.where(scales > 0, (new * old).sum(1) / scales, torch.nan).tolist()
        found = zip(numbers, numbers[1:], cosines, strict=False)
        return {step: each for before, step, each in found if before == step - 1 and math.isfinite(each)}

    def correlations(self) -> list[float | None]:
        """Rho at lags 1 to L since the last call, None where no two steps lie so far apart; begins anew."""
        self._add_up()
        products, new, old = self._sums.cpu().clone()
        self._sums.zero_()
        scales = (new * old).sqrt()
        return [float(product / scale) if scale > 0 else None for product, scale in zip(products, scales, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        waiting = torch.stack(self._waiting) if self._waiting else self._past[:0]
        steps = torch.tensor(list(self._steps), dtype=torch.int64)
        return {"past": self._past, "waiting": waiting, "sums": self._sums, "steps": steps}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; sums of another number of lags are left aside."""
        device = self._sums.device
        self._past = state["past"].to(device)
        self._waiting = list(state["waiting"].to(device))
        self._steps = deque(state["steps"].tolist() if "steps" in state else [], maxlen=self._steps.maxlen)
        if state["sums"].shape == self._sums.shape:
            self._sums.copy_(state["sums"])

    def _rows(self) -> Tensor:
        return torch.cat([self._past, torch.stack(self._waiting)]) if self._waiting else self._past

    def _add_up(self) -> None:
        """Add the products of those that wait with all before them."""
        count = len(self._waiting)
        if not count:
            return
        rows = self._rows()
        y = rows.double()
        squares = y.square().sum(1)
        for lag in range(1, min(self.lags, len(rows) - 1) + 1):
            first = max(len(rows) - count, lag)
            new, old = slice(first, None), slice(first - lag, len(rows) - lag)
            self._sums[:, lag - 1] += torch.stack([(y[new] * y[old]).sum(), squares[new].sum(), squares[old].sum()])
        self._past = rows[-self._keep :].clone()
        self._waiting = []
