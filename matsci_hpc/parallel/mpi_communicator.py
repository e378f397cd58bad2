"""Ranks joined by MPI itself, through mpi4py.

MPI moves data only while somebody calls it. So while this rank computes, a thread looks at the collectives that are
under way, and sleeps in between: one that spins, as MPI's own waiting does, would take a core from the computation.
One lock keeps the two threads from calling MPI at the same time, which is all that its level "serialized" asks for.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matsci_hpc.errors import RankError
from matsci_hpc.parallel.communicator import Operation, Pending
from matsci_hpc.parallel.mpi import load_mpi
from matsci_hpc.parallel.watched import Meeting, WatchedCommunicator

LOOK_S = 200e-6
"""Sleep of the thread between two looks, while this rank computes."""
SPINS = 200
"""Looks of a waiting rank before it sleeps between them: short collectives are over by then."""
HALVES = (torch.bfloat16, torch.float16)
"""Types in which MPI cannot add."""


class MpiCommunicator(WatchedCommunicator):
    """A communicator of MPI.

    Args:
        meeting: of the ranks.
    """

    def __init__(self, meeting: Meeting) -> None:
        super().__init__("mpi", meeting)
        self._mpi = load_mpi(meeting.info)
        self.faults = (self._mpi.Exception,)
        self._operations = {"sum": self._mpi.SUM, "max": self._mpi.MAX, "min": self._mpi.MIN}
        self._lock = threading.Lock()
        self._under_way: list[_Request] = []
        self._closing = False
        self._begun = threading.Event()
        # Halves of an all-reduce in two parts begin when the first has ended, at another time on every rank.
        self._comm, self._second = (self._mpi.COMM_WORLD.Dup() for _ in range(2))
        self._thread = threading.Thread(target=self._carry_on, name="mpi progress", daemon=True)
        self._thread.start()
        self.watchdog.start()

    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:
        """Begin an `all_reduce`, which a thread of this rank carries on."""
        if tensor.dtype in HALVES:
            return self._reduce_halves_start(tensor, operation)
        flat, back = _on_host(tensor)
        comm, op = self._comm, self._operations[operation]
        return self._start([lambda: comm.Iallreduce(self._mpi.IN_PLACE, flat, op=op)], back)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""
        mine, _ = _on_host(tensor)
        rows = np.empty((self.size, mine.size), dtype=mine.dtype)
        self._start([lambda: self._comm.Iallgather(mine, rows)]).wait()
        return torch.from_numpy(rows).view(self.size, *tensor.shape).to(tensor.device)

    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""
        flat, back = _on_host(tensor)
        self._start([lambda: self._comm.Ibcast(flat, root=0)], back).wait()

    def leave(self) -> None:
        """Let the thread end; MPI itself is left at the end of the process."""
        self._closing = True
        self._begun.set()
        self._thread.join(timeout=1.0)

    def look(self) -> None:
        """Let MPI move data, and begin the next part of what needs one."""
        with self._lock:
            for each in list(self._under_way):
                if each.advance():
                    self._under_way.remove(each)
                elif each.parts_left:
                    break  # later ones must not begin their second part before this one: ranks begin them in order
            if not self._under_way:
                self._begun.clear()

    def _start(self, parts: list[Callable[[], Any]], after: Callable[[], None] = lambda: None) -> "_Request":
        try:
            with self._lock:
                request = _Request(self, parts, after)
                self._under_way.append(request)
        except self.faults as error:
            self.fail(str(error))
        self._begun.set()
        return request

    def _reduce_halves_start(self, tensor: Tensor, operation: Operation) -> Pending:
        """Each rank adds one part of the 16-bit numbers, in float32 and rounding once, and all gather the parts."""
        count = -(-tensor.numel() // self.size)
        padded = tensor.new_zeros(self.size * count, device="cpu")
        padded[: tensor.numel()] = tensor.flatten()
        received = torch.empty_like(padded)
        part = padded.new_empty(count)

        def gather() -> Any:
            rows = received.view(self.size, count).float()
            part.copy_(rows.sum(0) if operation == "sum" else rows.amax(0) if operation == "max" else rows.amin(0))
            return self._second.Iallgather(_bits(part), _bits(padded))

        def back() -> None:
            tensor.copy_(padded[: tensor.numel()].view_as(tensor))

        return self._start([lambda: self._comm.Ialltoall(_bits(padded), _bits(received)), gather], back)

    def _carry_on(self) -> None:
        while True:
            self._begun.wait()
            if self._closing:
                return
            # A waiting rank looks by itself, more often.
            if not self.activity.waiting:
                try:
                    self.look()
                except self.faults:
                    return  # the rank meets the same fault when it waits
            time.sleep(LOOK_S)


class _Request:
    """A collective under way, of one part or of several that follow each other.

    Args:
        comm: looks after it.
        parts: each begins one of MPI's collectives and gives its request.
        after: once all are over, on the thread that waits.
    """

    def __init__(self, comm: MpiCommunicator, parts: list[Callable[[], Any]], after: Callable[[], None]) -> None:
        self.ended_s = 0.0
        self.parts_left = parts[1:]
        self._comm = comm
        self._after = after
        self._request = parts[0]()

    def advance(self) -> bool:
        """Whether it is over; under the communicator's lock."""
        if not self._request.Test():
            return False
        if self.parts_left:
            self._request = self.parts_left.pop(0)()
            return False
        self.ended_s = time.perf_counter()
        return True

    def wait(self) -> None:
        """Wait until its result is there."""
        try:
            for _ in range(SPINS):
                if self._is_over():
                    break
                os.sched_yield()
            self._comm.wait_until(self._is_over)
        except self._comm.faults as error:
            self._comm.fail(str(error))
        self._after()

    def _is_over(self) -> bool:
        if not self.ended_s:
            self._comm.look()
        return self.ended_s > 0


def _on_host(tensor: Tensor) -> tuple[NDArray[Any], Callable[[], None]]:
    """A flat array of the tensor's numbers, and what brings them back; of a tensor on the host, its own memory."""
    source = tensor.detach()
    if source.device.type == "cpu" and source.is_contiguous():
        return source.view(-1).numpy(), lambda: None
    host = source.cpu().contiguous()

    def back() -> None:
        source.copy_(host)

    return host.view(-1).numpy(), back


def _bits(halves: Tensor) -> NDArray[Any]:
    """16-bit numbers as MPI can carry them."""
    return halves.view(torch.int16).numpy()


def join(meeting: Meeting) -> MpiCommunicator:
    """Join ranks that have met.

    Raises:
        RankError: MPI does not take part.
    """
    try:
        return MpiCommunicator(meeting)
    except RuntimeError as error:
        raise RankError(meeting.info.rank, f"cannot join mpi: {error}") from None
