"""Ranks joined by Horovod, whose sums go through MPI or through oneCCL.

Horovod has a thread of its own that agrees with the other ranks on what comes next, and carries it out while this rank
computes. It finds what belongs together by name, so that every rank gives the same names in the same order.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matsci_hpc.errors import MachineError, RankError
from matsci_hpc.parallel.communicator import Operation, Pending
from matsci_hpc.parallel.watched import Meeting, WatchedCommunicator

OLDEST = (0, 28)
HALVES = (torch.bfloat16, torch.float16)
NAMES = 64
"""Collectives of one kind and size that may be under way at once. Names are used again, as Horovod remembers them."""


def why_not() -> str | None:
    """Why Horovod cannot be used here, without loading it; None if it can."""
    try:
        found = version("horovod")
    except PackageNotFoundError:
        return "Horovod is not installed; `make horovod` builds it, and docs/horovod.md says how on a cluster"
    if tuple(map(int, found.split(".")[:2])) < OLDEST:
        return f"Horovod {found} is too old: 0.28 or newer is needed"
    return None


def let_waiting_threads_sleep() -> None:
    """Ask Intel MPI, before it is loaded, not to spin while it waits.

    Horovod's thread waits for other ranks inside of MPI, on the core that this rank computes on: with a spinning one,
    steps of two ranks with a core each take 1.5 times as long (benchmarks/comm.py).
    """
    os.environ.setdefault("I_MPI_WAIT_MODE", "1")


def choose_operations(wanted: str) -> None:
    """Say, before Horovod is loaded, who carries out its operations on CPUs: `mpi`, `ccl`, or as built (`auto`)."""
    if wanted != "auto":
        os.environ["HOROVOD_CPU_OPERATIONS"] = wanted.upper()
    # oneCCL asks for these, which a module of a cluster sets, and an environment with Intel MPI from PyPI does not.
    prefix = Path(sys.prefix)
    if (prefix / "bin" / "mpiexec.hydra").is_file():
        os.environ.setdefault("I_MPI_ROOT", str(prefix))
        os.environ.setdefault("CCL_ROOT", str(prefix))


class HorovodCommunicator(WatchedCommunicator):
    """A communicator of Horovod.

    Args:
        meeting: of the ranks.

    Raises:
        MachineError: Horovod does not load, or sees other ranks than the launcher started.
    """

    def __init__(self, meeting: Meeting) -> None:
        super().__init__("horovod", meeting)
        try:
            import horovod.torch as hvd
            from horovod.common.exceptions import HorovodInternalError
        except (ImportError, OSError) as error:
            raise MachineError(f"Horovod does not load: {' '.join(str(error).split())}; build it again") from None
        operations = os.environ.get("HOROVOD_CPU_OPERATIONS", "").upper()
        if operations == "CCL" and not hvd.ccl_built():
            raise MachineError("parallel.horovod_operations: ccl, and this Horovod was built without oneCCL; take mpi")
        self.faults = (HorovodInternalError, RuntimeError)
        self._hvd = hvd
        self._names: Counter[str] = Counter()
        self.guarded(hvd.init)
        if (hvd.rank(), hvd.size()) != (self.rank, self.size):
            raise MachineError(
                f"Horovod sees rank {hvd.rank()} of {hvd.size()}, the launcher {self.rank} of {self.size}: start "
                "the ranks by the launcher of the MPI that Horovod was built with"
            )
        self.watchdog.start()

    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:
        """Begin an `all_reduce`, which a thread of Horovod carries on."""
        if operation != "sum":  # which oneCCL has for some types only
            return self._extreme_start(tensor, operation)
        # Horovod knows no bfloat16, its oneCCL no float16, and neither a tensor without numbers.
        own = tensor.dtype not in HALVES and tensor.is_contiguous()
        flat = (tensor.float() if tensor.dtype in HALVES else tensor).detach().reshape(-1)
        if not flat.numel():
            return _Handle(self, None, lambda _: None)
        handle = self._begin("sum", flat, lambda name: self._hvd.allreduce_async_(flat, name=name, op=self._hvd.Sum))
        return _Handle(self, handle, lambda _: None if own else tensor.copy_(flat.view_as(tensor)))

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""
        found: list[Tensor] = []
        self._gather_start(tensor, found.append).wait()
        return found[0]

    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""
        flat = tensor.detach().reshape(-1)
        if flat.numel():
            handle = self._begin("first", flat, lambda name: self._hvd.broadcast_async_(flat, 0, name=name))
            _Handle(self, handle, lambda _: tensor.copy_(flat.view_as(tensor))).wait()

    def close(self, failure: str | None = None) -> None:
        """Leave the group; with a failure, the others are told of it first."""
        if failure is None:
            self.guarded(self._hvd.shutdown)
        super().close(failure)

    def leave(self) -> None:
        """Nothing is left to give up: after a failure the process ends without waiting for Horovod."""

    def _extreme_start(self, tensor: Tensor, operation: Operation) -> Pending:
        def keep(rows: Tensor) -> None:
            tensor.copy_(rows.amax(0) if operation == "max" else rows.amin(0))

        return self._gather_start(tensor, keep)

    def _gather_start(self, tensor: Tensor, keep: Callable[[Tensor], Any]) -> "_Handle":
        row = tensor.detach().contiguous().view(1, -1)
        handle = self._begin("rows", row, lambda name: self._hvd.allgather_async(row, name=name))
        return _Handle(self, handle, lambda rows: keep(rows.view(self.size, *tensor.shape)))

    def _begin(self, kind: str, tensor: Tensor, start: Callable[[str], int]) -> int:
        key = f"{kind} {tensor.dtype} {tensor.numel()}"
        self._names[key] += 1
        try:
            return start(f"{key} {self._names[key] % NAMES}")
        except self.faults as error:
            self.fail(str(error).splitlines()[0])

    def is_over(self, handle: int) -> bool:
        """Whether a collective has ended."""
        return bool(self._hvd.poll(handle))

    def result(self, handle: int) -> Any:
        """What a collective that has ended gave."""
        return self._hvd.synchronize(handle)


class _Handle:
    """A collective under way; None is one that has nothing to do."""

    def __init__(self, comm: HorovodCommunicator, handle: int | None, after: Callable[[Any], Any]) -> None:
        self.ended_s = 0.0
        self._comm = comm
        self._handle = handle
        self._after = after

    def wait(self) -> None:
        """Wait until its result is there."""
        handle = self._handle
        if handle is not None:
            self._comm.wait_until(lambda: self._comm.is_over(handle))
            results: list[Any] = []
            self._comm.guarded(lambda: results.append(self._comm.result(handle)))
            self._after(results[0])
        self.ended_s = time.perf_counter()


def join(meeting: Meeting) -> HorovodCommunicator:
    """Join ranks that have met.

    Raises:
        RankError: Horovod does not take part.
    """
    try:
        return HorovodCommunicator(meeting)
    except ValueError as error:  # what Horovod says of a build without MPI
        raise RankError(meeting.info.rank, f"cannot join horovod: {error}") from None
