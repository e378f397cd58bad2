"""How far a long job is: a bar on a terminal, one plain line per interval in a log file."""

import sys
import time
from types import TracebackType
from typing import Any, Self


class Progress:
    """Counts units of work on one rank and shows them on standard error.

    Args:
        total: units of work of all ranks.
        unit: what is counted, such as "shards".
        shown: whether this rank shows anything.
        interval_s: seconds between lines where there is no terminal.
    """

    def __init__(self, total: int, unit: str, *, shown: bool, interval_s: float = 30.0) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._shown = shown
        self._interval_s = interval_s
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

    def show(self, done: int, note: str = "") -> None:
        """Say that `done` units are finished."""
        if not self._shown or done <= self.done:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(note)
            self._bar.update(done - self.done)
        self.done = done
        now_s = time.monotonic()
        if self._bar is None and now_s - self._last_s >= self._interval_s:
            self._last_s = now_s
            elapsed_s = now_s - self._start_s
            left_s = elapsed_s / done * (self.total - done)
            tail = f", {note}" if note else ""
            line = f"{done}/{self.total} {self.unit}, {elapsed_s:.0f} s elapsed, about {left_s:.0f} s left{tail}"
            print(line, file=sys.stderr, flush=True)
