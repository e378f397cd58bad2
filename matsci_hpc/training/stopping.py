"""Stopping cleanly: a file, a signal or a time limit becomes a flag that all ranks see at the same step.

STOP is a request, and the life that obeys it uses it up: it saves, takes the file away, and says in STOPPED why it
ended. A life that starts removes no STOP: one that came while the job waited in the queue is obeyed, not lost.

| STOP holds | STOPPED says |
|---|---|
| nothing, or other words than these | `by hand` |
| `time limit` or `preempted`: a job script asks, which goes on later | the same |
| there is none | `signal SIGTERM`, `max_time_s`, `another rank was asked to` |
"""

import signal
import time
from pathlib import Path
from types import FrameType

from matsci_hpc.whole_files import output_error

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FILE_CHECK_S = 1.0
"""Least time between looks for the STOP file, which may lie on a slow shared file system."""
BY_HAND = "by hand"
BY_SCRIPT = ("time limit", "preempted")
ELSEWHERE = "another rank was asked to"


class StopSignals:
    """Turns the signals above into a note from now on; a second SIGINT interrupts at once.

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

    def ignore(self) -> None:
        """All is on disk: a request to stop that comes from now on must not turn a good end into a death by signal.

        Python puts its own handlers back as it ends, and MPI takes its time to end; what is ignored stays so.
        """
        for number in SIGNALS:
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_IGN)


class StopRequests:
    """Notices requests to stop on this rank.

    Args:
        signals: what came by signal.
        stop_file: its existence asks for a stop.
        looks: whether this rank looks for the file; one is enough.
        max_time_s: ask for a stop after so long, or None.

    Attributes:
        reason: what asked this rank to stop, in words for the screen.
        short: the same as STOPPED has it, unless there is a STOP.
    """

    def __init__(self, signals: StopSignals, stop_file: Path, *, looks: bool, max_time_s: float | None) -> None:
        self.reason: str | None = None
        self.short = ELSEWHERE
        self._signals = signals
        self._stop_file = stop_file
        self._looks = looks
        self._end_s = time.monotonic() + max_time_s if max_time_s is not None else None
        self._next_look_s = 0.0

    def look(self) -> bool:
        """Whether STOP is there now."""
        if self._stop_file.exists():
            self.reason, self.short = f"{self._stop_file} appeared", BY_HAND
            return True
        return False

    def requested(self) -> bool:
        """Whether this rank was asked to stop; `reason` says by what."""
        now_s = time.monotonic()
        if self.reason is None and self._signals.reason is not None:
            self.reason = self.short = self._signals.reason
        if self.reason is None and self._end_s is not None and now_s >= self._end_s:
            self.reason, self.short = "max_time_s is over", "max_time_s"
        if self.reason is None and self._looks and now_s >= self._next_look_s:
            self._next_look_s = now_s + FILE_CHECK_S
            self.look()
        return self.reason is not None

    def use_up(self) -> str:
        """Take STOP away, if there is one, and give the line for STOPPED; once all is saved, on the rank that looks.

        One that came while the life was stopping for another reason is obeyed by the same stop. It is moved before it
        is read, so that nothing touched meanwhile is lost: from then on it is a new STOP, for the next life.

        Raises:
            UserInputError, MachineError: it cannot be taken away.
        """
        taken = self._stop_file.with_name(".STOP.obeyed")
        try:
            self._stop_file.rename(taken)
            text = taken.read_bytes()[:100].decode(errors="replace")
            taken.unlink()
        except FileNotFoundError:  # there is none, or somebody took it back too late
            return self.short
        except OSError as error:
            raise output_error(self._stop_file, error) from None
        words = text.partition("\n")[0].strip()
        return words if words in BY_SCRIPT else BY_HAND
