"""What a rank is doing, for those who watch it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

STARTUP = "startup"


class Activity:
    """Step, phase and progress of this rank; written by its main thread, read by the thread that publishes them.

    Attributes:
        step: the step being taken, from 1 as in the records; during an evaluation or a save, the last one taken.
        phase: startup, data, compute, communication, optimizer, evaluation or checkpoint.
        count: grows with every sign of progress.
        waiting: whether it waits in a collective, where a lack of progress is not this rank's doing.
        on_tick: called with every sign of progress, by the thread that gives it; has to be quick.
    """

    def __init__(self) -> None:
        self.step = 0
        self.phase = STARTUP
        self.count = 0
        self.waiting = False
        self.on_tick: Callable[[], None] = lambda: None

    def at(self, phase: str, step: int | None = None) -> None:
        """Begin a phase, of another step if that is given."""
        self.phase = phase
        if step is not None:
            self.step = step
        self.tick()

    def tick(self) -> None:
        """Some progress within a phase."""
        self.count += 1
        self.on_tick()

    @contextmanager
    def in_collective(self) -> Iterator[None]:
        """Where this rank waits for the others."""
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False
            self.count += 1
