"""Spikes of the training loss, found as it is computed.

A loss is a spike where it lies above the running median by more than a number of robust standard deviations,

    loss > median + threshold max(1.4826 MAD, floor |median|),

median and MAD (median absolute deviation) over the last `window` losses; 1.4826 MAD is the standard deviation of a
normal distribution (Rousseeuw and Croux 1993, doi:10.1080/01621459.1993.10476408). The floor keeps a loss that hardly
varies from making spikes of rounding. What lies above the limit enters the window as the limit, so that one spike does
not hide the next, and a loss that stays high becomes the new normal.
"""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

TO_STANDARD_DEVIATION = 1.4826
FLOOR = 0.01
"""Least standard deviation, in parts of the median."""


@dataclass(frozen=True, slots=True)
class Spike:
    """A step at which a spike begins.

    Attributes:
        loss: of the step.
        median, mad: of the losses before it.
        deviations: how far above the median, in robust standard deviations.
    """

    loss: float
    median: float
    mad: float
    deviations: float


class SpikeDetector:
    """Looks at one loss after the other.

    Args:
        window: losses that the median is taken over; none is judged before half of them are known.
        threshold: in robust standard deviations.
    """

    def __init__(self, window: int, threshold: float) -> None:
        self._losses: deque[float] = deque(maxlen=window)
        self._window = window
        self._threshold = threshold
        self._inside = False

    def look(self, loss: float) -> Spike | None:
        """Take note of a step's loss; the spike that begins with it, if one does."""
        if not math.isfinite(loss):  # a case of its own: no size can be told
            return None
        if len(self._losses) < -(-self._window // 2):
            self._losses.append(loss)
            return None
        middle = median(self._losses)
        mad = median(abs(each - middle) for each in self._losses)
        deviation = max(TO_STANDARD_DEVIATION * mad, FLOOR * abs(middle), 1e-30)
        limit = middle + self._threshold * deviation
        self._losses.append(min(loss, limit))
        began = loss > limit and not self._inside
        self._inside = loss > limit
        return Spike(loss, middle, mad, (loss - middle) / deviation) if began else None

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        return {"losses": torch.tensor([float(self._inside), *self._losses], dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, with the newest losses that the window has room for."""
        inside, *losses = state["losses"].tolist()
        self._inside = bool(inside)
        self._losses = deque(losses, maxlen=self._window)


COLUMNS = ("step", "loss", "lr", "grad_norm", "share_beyond")


class LastSteps:
    """The newest steps in short, to be written when a spike is seen.

    Args:
        steps: how many are kept.
    """

    def __init__(self, steps: int) -> None:
        self._rows: deque[list[float]] = deque(maxlen=steps)

    def add(self, **values: float | None) -> None:
        """One more step, by `COLUMNS`; what is not known of it is None."""
        self._rows.append([math.nan if values[each] is None else float(values[each] or 0.0) for each in COLUMNS])

    def records(self) -> list[dict[str, float | int | None]]:
        """The steps, the oldest first."""
        found: list[dict[str, float | int | None]] = []
        for row in self._rows:
            record = dict(zip(COLUMNS, row, strict=True))
            known = {key: value if math.isfinite(value) else None for key, value in record.items()}
            found.append({**known, "step": int(row[0])})
        return found

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        return {"rows": torch.tensor(list(self._rows), dtype=torch.float64).reshape(-1, len(COLUMNS))}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._rows = deque(state["rows"].tolist(), maxlen=self._rows.maxlen)
