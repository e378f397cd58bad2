"""How far a long job is: a bar on a terminal, one plain line per interval in a log file."""

import sys
import time
from types import TracebackType
from typing import Any, Self

LINE_EVERY_S = 30.0


class Progress:
    """Counts units of work on one rank and shows them on standard error.

    Args:
        total: units of work of all ranks.
        unit: what is counted, such as "inputs".
        shown: whether this rank shows anything.
        interval_s: seconds between lines where there is no terminal, LINE_EVERY_S by default.
    """

    def __init__(self, total: int, unit: str, *, shown: bool, interval_s: float | None = None) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._shown = shown
        self._interval_s = LINE_EVERY_S if interval_s is None else interval_s
        self._start_s = self._last_s = time.monotonic()
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=f" {unit}", leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, note: str = "", skipped: int = 0) -> None:
        """Say that `done` units are finished.

        Args:
            done: of all ranks.
            note: what else to say.
            skipped: those of them that cost nothing; rate and time left are those of the others.
        """
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.initial = skipped
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self.done)
        self.done = done
        now_s = time.monotonic()
        if self._bar is None and now_s - self._last_s >= self._interval_s:
            self._last_s = now_s
            print(self._line(done, note, skipped, now_s - self._start_s), file=sys.stderr, flush=True)

    def _line(self, done: int, note: str, skipped: int, elapsed_s: float) -> str:
        rate = max(done - skipped, 0) / max(elapsed_s, 1e-9)
        left = f", {rate:,.0f} {self.unit}/s, about {(self.total - done) / rate:.0f} s left" if rate else ""
        tail = f"; {note}" if note else ""
        return f"{done:,}/{self.total:,} {self.unit}, {elapsed_s:.0f} s elapsed{left}{tail}"
