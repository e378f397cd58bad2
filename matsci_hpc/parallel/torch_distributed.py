"""Ranks joined by torch.distributed."""

import json
import re
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]

from matsci_hpc.errors import RankError
from matsci_hpc.parallel.activity import Activity
from matsci_hpc.parallel.communicator import Operation
from matsci_hpc.parallel.discovery import RankInfo
from matsci_hpc.parallel.watchdog import LOST, Watchdog

_SOURCE_PLACE = re.compile(r"\[/\S+:\d+\] ")
"""Where in its own source gloo found the fault, which helps nobody here."""
_OPERATIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class TorchCommunicator:
    """A process group of torch.distributed.

    Args:
        backend: gloo.
        info: this rank.
        store: where the ranks meet.
        timeout: longest wait in a collective.
        activity: told when this rank waits.
        watchdog: asked who is missing when a collective fails.
    """

    def __init__(
        self,
        backend: str,
        info: RankInfo,
        store: Store,
        timeout: timedelta,
        activity: Activity,
        watchdog: Watchdog,
    ) -> None:
        self.name = backend
        self.rank = info.rank
        self.size = info.size
        self.activity = activity
        self._watchdog = watchdog
        try:
            with activity.in_collective():
                dist.init_process_group(backend, store=store, rank=info.rank, world_size=info.size, timeout=timeout)
        except (dist.DistError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise RankError(self.rank, f"cannot join {backend}: {reason}") from None
        watchdog.start()

    def all_reduce(self, tensor: Tensor, operation: Operation = "sum") -> None:
        """Replace the tensor, in place, by its sum, maximum or minimum over all ranks."""
        self._run(lambda: dist.all_reduce(tensor, op=_OPERATIONS[operation]))

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""
        rows = [torch.empty_like(tensor) for _ in range(self.size)]
        self._run(lambda: dist.all_gather(rows, tensor))
        return torch.stack(rows)

    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""
        self._run(lambda: dist.broadcast(tensor, src=0))

    def broadcast_object(self, value: Any) -> Any:
        """The small value that rank 0 gave, of what JSON knows: tuples become lists."""
        data = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor(len(data))
        self.broadcast(length)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.broadcast(content)
        return json.loads(content.numpy().tobytes())

    def barrier(self) -> None:
        """Wait for all ranks."""
        self._run(dist.barrier)

    def close(self, failure: str | None = None) -> None:
        """Leave the group; with a failure, the others are told of it first."""
        if failure is None:
            self._watchdog.stop()
        else:
            self._watchdog.farewell(failure)
        dist.destroy_process_group()

    def _run(self, collective: Any) -> None:
        try:
            with self.activity.in_collective():
                collective()
        except (dist.DistError, RuntimeError) as error:
            reason = _SOURCE_PLACE.sub("", str(error).splitlines()[0]).partition(". This is typically")[0]
            missing = self._watchdog.who_is_missing()
            self._watchdog.farewell(f"{LOST} {missing}")
            raise RankError(self.rank, f"lost {missing} ({reason})") from None
