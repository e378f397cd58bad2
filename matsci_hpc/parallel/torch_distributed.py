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
GROUPS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl", "xccl": "cpu:gloo,xpu:xccl", "ccl": "ccl"}
"""What torch calls the groups: sums of losses and the like stay on the processor, whatever joins the GPUs."""
GPU_LOOK_S = 100e-6
"""Longest sleep between two looks at a collective on a GPU: its steps are short."""
_OPERATIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class TorchCommunicator(WatchedCommunicator):
    """A process group of torch.distributed.

    Args:
        name: gloo, nccl, xccl or ccl.
        meeting: of the ranks.
    """

    faults = (dist.DistError, RuntimeError)

    def __init__(self, name: str, meeting: Meeting) -> None:
        super().__init__(name, meeting)
        if name == "ccl":
            import oneccl_bindings_for_pytorch  # noqa: F401 - its import makes the backend known to torch
        try:
            with self.activity.in_collective():
                dist.init_process_group(
                    GROUPS[name], store=meeting.store, rank=self.rank, world_size=self.size, timeout=meeting.patience
                )
        except self.faults as error:
            reason = str(error).splitlines()[0]
            raise RankError(self.rank, f"cannot join {name}: {reason}") from None
        self.watchdog.start()
        if name in {"nccl", "xccl"}:
            # They join on first use: what is wrong with the GPUs should show before anything is read.
            self.all_reduce(torch.zeros(1, device="cuda" if name == "nccl" else "xpu"))

    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:
        """Begin an `all_reduce`, which threads of the process group carry on."""
        try:
            work = dist.all_reduce(tensor, op=_OPERATIONS[operation], async_op=True)
        except self.faults as error:
            if "Duplicate GPU" in str(error):
                raise RankError(
                    self.rank,
                    f"{self.name} joins one rank per GPU, and two ranks have the same one: start as many ranks on a "
                    "node as it has GPUs, or set parallel.backend: gloo",
                ) from None
            self.fail(str(error).splitlines()[0])
        return _Work(self, work) if tensor.device.type == "cpu" else _DeviceWork(self, work)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""
        rows = [torch.empty_like(tensor) for _ in range(self.size)]
        self.guarded(lambda: dist.all_gather(rows, tensor))
        return torch.stack(rows)

    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""
        self.guarded(lambda: dist.broadcast(tensor, src=0))

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


class _DeviceWork:
    """A collective on a GPU, which the library's own wait would only put in line behind other work there."""

    def __init__(self, comm: TorchCommunicator, work: Any) -> None:
        self.ended_s = 0.0
        self._comm = comm
        self._work = work

    def wait(self) -> None:
        """Wait until its result is there."""
        self._comm.guarded(self._work.wait)
        self._comm.wait_until(self._work.is_completed, GPU_LOOK_S)
        self.ended_s = time.perf_counter()
