"""Stopping cleanly: a file, a signal or a time limit becomes a flag that all ranks see at the same step."""

import signal
import time
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
FILE_CHECK_S = 1.0
"""Least time between looks for the STOP file, which may lie on a slow shared file system."""


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGUSR1 into a note from now on; a second SIGINT interrupts at once.

    Made first of all: until then these signals end the process, and importing torch alone can take a minute.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.reason = f"signal {signal.Signals(number).name}"
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


class StopRequests:
    """Notices requests to stop on this rank.

    Args:
        signals: what came by signal.
        stop_file: its existence asks for a stop.
        looks: whether this rank looks for the file; one is enough.
        max_time_s: ask for a stop after so long, or None.
    """

    def __init__(self, signals: StopSignals, stop_file: Path, *, looks: bool, max_time_s: float | None) -> None:
        self.reason: str | None = None
        self._signals = signals
        self._stop_file = stop_file
        self._looks = looks
        self._end_s = time.monotonic() + max_time_s if max_time_s is not None else None
        self._next_look_s = 0.0

    def requested(self) -> bool:
        """Whether this rank was asked to stop; `reason` says by what."""
        now_s = time.monotonic()
        if self.reason is None:
            self.reason = self._signals.reason
        if self.reason is None and self._end_s is not None and now_s >= self._end_s:
            self.reason = "max_time_s is over"
        if self.reason is None and self._looks and now_s >= self._next_look_s:
            self._next_look_s = now_s + FILE_CHECK_S
            if self._stop_file.exists():
                self.reason = f"{self._stop_file} appeared"
        return self.reason is not None
