"""How alike the gradients of neighbouring steps are.

    rho_l = sum_t <y_t, y_(t-l)> / sqrt(sum_t |y_t|^2  sum_t |y_(t-l)|^2),    l = 1..L

over the steps since the last record, with y_t the projected gradient of step t. It is 0 where gradients are
independent with mean zero, phi^l for a process g_t = phi g_(t-1) + noise, and never above 1. The mean is not taken
off: a gradient that keeps its direction is what moves Adam's ratio to -1 and +1.
"""

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
        self._sums = torch.zeros((3, lags), dtype=torch.float64, device=device)

    def add(self, projected: Tensor) -> None:
        """The next step's projected gradient, float32 [dimension]."""
        self._waiting.append(projected)
        if len(self._waiting) == AT_ONCE:
            self._add_up()

    def neighbours(self, steps: int) -> list[float | None]:
        """Cosine of the angle between each of the newest gradients and the one before it; None where that is unknown.

        Args:
            steps: how many, at most `keep`; fewer are given if there are fewer.
        """
        rows = self._rows()[-steps - 1 :].double() if steps else self._past[:0]
        new, old = rows[1:], rows[:-1]
        scales = new.norm(dim=1) * old.norm(dim=1)
        cosines = torch.where(scales > 0, (new * old).sum(1) / scales, torch.nan).tolist()
        known: list[float | None] = [each if each == each else None for each in cosines]  # noqa: PLR0124 - not NaN
        return [None] * (min(steps, len(rows)) - len(known)) + known

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
        return {"past": self._past, "waiting": waiting, "sums": self._sums}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; sums of another number of lags are left aside."""
        device = self._sums.device
        self._past = state["past"].to(device)
        self._waiting = list(state["waiting"].to(device))
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
