"""A sink that is written to by a thread, so that no step waits for it and none of its failures ends the run."""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence

from matsci_hpc.telemetry.sinks.sink import Numbers, Sink

MAX_WAITING = 10_000
"""Lines that wait for a slow sink at most."""
CLOSE_WITHIN_S = 20.0
POLL_S = 0.1


def close_sinks(sinks: Sequence["SinkThread"], tick: Callable[[], None] = lambda: None) -> None:
    """End all of them, and wait for `CLOSE_WITHIN_S` at most; `tick` as of `SinkThread.wait`."""
    for sink in sinks:
        sink.end()
    until_s = time.monotonic() + CLOSE_WITHIN_S
    for sink in sinks:
        sink.wait(until_s, tick)


class SinkThread:
    """Opens a sink and writes to it, in the order of the calls.

    Args:
        name: of the sink.
        opener: opens it.
    """

    def __init__(self, name: str, opener: Callable[[], Sink]) -> None:
        self._name = name
        self._opener = opener
        self._calls: queue.Queue[Callable[[Sink], None] | None] = queue.Queue(MAX_WAITING)
        self._failed = False
        self._saying = threading.Lock()
        # A daemon: a sink that hangs must not keep a rank that is done.
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, numbers: Numbers, *, repeated: bool = False) -> None:
        """Hand over the numbers of a step, as of `Sink.write`; dropped once the sink has failed."""
        self._call(lambda sink: sink.write(step, numbers, repeated=repeated))

    def go_back(self, step: int) -> None:
        """Tell of a rollback, after the lines before it."""
        self._call(lambda sink: sink.go_back(step))

    def end(self) -> None:
        """No more lines will come."""
        if not self._failed:
            with contextlib.suppress(queue.Full):
                self._calls.put_nowait(None)

    def wait(self, until_s: float, tick: Callable[[], None] = lambda: None) -> None:
        """Wait, after `end`, until everything is written.

        Args:
            until_s: when to give it up, by `time.monotonic`.
            tick: called meanwhile: this rank does not hang.
        """
        while not self._failed and self._thread.is_alive():
            if time.monotonic() >= until_s:
                self._fail(f"it has not ended within {CLOSE_WITHIN_S:g} s")
            self._thread.join(POLL_S)
            tick()

    def _call(self, call: Callable[[Sink], None]) -> None:
        if self._failed:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._fail(f"it has not taken {MAX_WAITING:,} lines")

    def _run(self) -> None:
        try:
            sink = self._opener()
            while (call := self._calls.get()) is not None and not self._failed:
                call(sink)
            sink.close()
        except ImportError:
            self._fail(f"its package is not installed: pip install 'matsci-hpc[{self._name}]'")
        except BaseException as error:  # noqa: BLE001 - whatever another program does, the run goes on
            self._fail(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _fail(self, why: str) -> None:
        """Say it once, and drop what follows."""
        with self._saying:  # who waits for the end of this sink finds it said
            if self._failed:
                return
            print(
                f"matsci-hpc: warning: records.sinks: {self._name}: {why}; training goes on without this log, "
                "metrics.jsonl has everything",
                file=sys.stderr,
                flush=True,
            )
            self._failed = True
