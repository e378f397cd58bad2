"""Ranks joined by torch.distributed."""

import re
import time
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from matsci_hpc.errors import RankError
from matsci_hpc.parallel.communicator import Operation, Pending
from matsci_hpc.parallel.watched import Meeting, WatchedCommunicator

_SOURCE_PLACE = re.compile(r"\[/\S+:\d+\] ")
"""Where in its own source gloo found the fault, which helps nobody here."""
_OPERATIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class TorchCommunicator(WatchedCommunicator):
    """A process group of torch.distributed.

    Args:
        name: gloo.
        meeting: of the ranks.
    """

    faults = (dist.DistError, RuntimeError)

    def __init__(self, name: str, meeting: Meeting) -> None:
        super().__init__(name, meeting)
        try:
            with self.activity.in_collective():
                dist.init_process_group(
                    name, store=meeting.store, rank=self.rank, world_size=self.size, timeout=meeting.patience
                )
        except self.faults as error:
            reason = str(error).splitlines()[0]
            raise RankError(self.rank, f"cannot join {name}: {reason}") from None
        self.watchdog.start()

    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:
        """Begin an `all_reduce`, which threads of the process group carry on."""
        try:
            work = dist.all_reduce(tensor, op=_OPERATIONS[operation], async_op=True)
        except self.faults as error:
            self.fail(str(error).splitlines()[0])
        return _Work(self, work)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""
        rows = [torch.empty_like(tensor) for _ in range(self.size)]
        self.guarded(lambda: dist.all_gather(rows, tensor))
        return torch.stack(rows)

    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""
        self.guarded(lambda: dist.broadcast(tensor, src=0))

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.guarded(dist.barrier)

    def leave(self) -> None:
        """Give up the process group."""
        dist.destroy_process_group()

    def fail(self, reason: str) -> NoReturn:
        """As of any backend, in fewer words."""
        super().fail(_SOURCE_PLACE.sub("", reason).partition(". This is typically")[0])


class _Work:
    """A collective of the process group that goes on by itself."""

    def __init__(self, comm: TorchCommunicator, work: Any) -> None:
        self.ended_s = 0.0
        self._comm = comm
        self._work = work
        work.get_future().add_done_callback(self._note_end)

    def wait(self) -> None:
        """Wait until its result is there."""
        self._comm.guarded(self._work.wait)
        # The callback may be a moment behind.
        self.ended_s = self.ended_s or time.perf_counter()

    def _note_end(self, _: object) -> None:
        self.ended_s = time.perf_counter()
