"""Signals that ask a job to end: the unit in work is dropped, what is finished stays, the same command goes on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from matsci_hpc.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

T = TypeVar("T")


class _StopNow(BaseException):
    """Passes through every `except Exception` on the way out, so that no input is rejected for it."""


class Interruption:
    """Turns the signals above into a note, which `check` raises where nothing can be left half-done.

    A second SIGINT interrupts at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals while this lasts; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Go on, unless a signal has come.

        Raises:
            StoppedError: one has.
        """
        if self.signal is not None:
            raise StoppedError(self.signal)

    def obeyed_at_once(self, work: Callable[[], T]) -> T:
        """Do one long piece of work that may be broken off anywhere.

        Raises:
            StoppedError: a signal has broken it off.
        """
        self.check()
        try:
            self._at_once = True  # in here: a signal that comes right after it must be caught
            result = work()
            self._at_once = False
        except _StopNow:
            self.check()
            raise
        finally:
            self._at_once = False
        return result

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        if self._at_once:
            self._at_once = False  # once is enough: the way out is not to be disturbed
            raise _StopNow
