"""A few numbers on rank 0 that every rank adds to and reads, by MPI-3 one-sided operations: nobody has to answer.

In theory. Where the network adapter cannot add by itself, MPI carries out such a request only while rank 0 is inside
some call of MPI: Open MPI over TCP, and Intel MPI even on one node, let all ranks wait until rank 0 had finished its
own block (measured: 2.5 s of a block of 2.5 s). So a thread of rank 0 makes a small call every few milliseconds.

MPI is loaded for one thread at a time, because several at once take the one-sided operations from Open MPI 4. So while
there is a board, whatever calls MPI goes through it, one after the other.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

POKE_S = 0.003
"""Time between two calls of rank 0's thread: 0.3 % of a core, and no rank waits longer than that for a number."""
LOOK_S = 0.005
"""Time between two looks for other ranks; MPI's own way of waiting takes a whole core."""


class Pulse:
    """A thread that does something small again and again, until it is stopped.

    Args:
        work: what it does.
        interval_s: time between two turns.
    """

    def __init__(self, work: Callable[[], object], interval_s: float) -> None:
        self._work = work
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, after its last turn."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            self._work()


class Board:
    """Numbers, all zero at first, that all ranks share; of one process without MPI. Collective to make.

    Args:
        comm: communicator of mpi4py, or None.
        numbers: how many.
    """

    def __init__(self, comm: Any | None, numbers: int) -> None:
        self._comm = comm
        self._own = np.zeros(numbers, dtype=np.int64)
        self._lock = threading.Lock()
        self._pulse: Pulse | None = None
        self._meeting: Any | None = None
        if comm is None:
            return
        from mpi4py import MPI

        self._mpi = MPI
        size = MPI.INT64_T.Get_size()
        first = comm.Get_rank() == 0
        self._window = MPI.Win.Allocate(numbers * size if first else 0, size, comm=comm)
        self._window.Lock_all()
        if first:
            self._window.Accumulate(self._own, 0, op=MPI.REPLACE)
            self._window.Flush(0)
        comm.Barrier()
        if first and comm.Get_size() > 1:
            self._pulse = Pulse(self._poke, POKE_S)

    def add(self, place: int, amount: int = 1) -> int:
        """Add to a number, and give what it was before; no two ranks get the same."""
        with self._lock:
            if self._comm is None:
                before = int(self._own[place])
                self._own[place] += amount
                return before
            return self._fetch(place, amount, self._mpi.SUM)

    def read(self, place: int) -> int:
        """A number as it is now."""
        with self._lock:
            if self._comm is None:
                return int(self._own[place])
            return self._fetch(place, 0, self._mpi.NO_OP)

    def meet(self, limit_s: float | None = None, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Wait until every rank is here, idle all the while; collective.

        Args:
            limit_s: how long at most, on this rank; None waits for ever.
            meanwhile: called again and again. Where it raises an error, this rank counts as here all the same, and its
                next call goes on with the same meeting.

        Returns:
            Whether they all came.
        """
        if self._comm is None:
            return True
        end_s = None if limit_s is None else time.monotonic() + limit_s
        if self._meeting is None:
            with self._lock:
                self._meeting = self._comm.Ibarrier()
        while True:
            with self._lock:
                if self._meeting.Test():
                    self._meeting = None
                    return True
            if end_s is not None and time.monotonic() > end_s:
                return False
            meanwhile()
            time.sleep(LOOK_S)

    def free(self) -> None:
        """Give the memory back; collective, and the ranks must have met, for from here on rank 0 answers nobody."""
        if self._pulse is not None:
            self._pulse.stop()
        if self._comm is not None:
            self._window.Unlock_all()
            self._window.Free()

    def _fetch(self, place: int, amount: int, operation: Any) -> int:
        before = np.empty(1, dtype=np.int64)
        self._window.Fetch_and_op(np.array([amount], dtype=np.int64), before, 0, place, operation)
        self._window.Flush(0)
        return int(before[0])

    def _poke(self) -> None:
        with self._lock:
            self._comm.Iprobe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG)  # type: ignore[union-attr]


class Counter:
    """Hands out 0, 1, 2, ... to whichever rank asks first. Collective to make.

    Args:
        comm: communicator of mpi4py, or None.
    """

    def __init__(self, comm: Any | None) -> None:
        self._board = Board(comm, 1)

    def take(self) -> int:
        """The next number."""
        return self._board.add(0)

    def free(self) -> None:
        """Wait for all ranks, and give the memory back; collective."""
        self._board.meet()
        self._board.free()
