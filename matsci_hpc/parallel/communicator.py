"""The one door to the network: what training may ask of the other ranks, whoever carries it out."""

import json
import os
from datetime import timedelta
from typing import Any, Literal, Protocol

from torch import Tensor

from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.activity import Activity
from matsci_hpc.parallel.discovery import RankInfo, discover
from matsci_hpc.parallel.watchdog import Limits, Watchdog

Operation = Literal["sum", "max", "min"]


class Communicator(Protocol):
    """A group of ranks. Every method is collective: all ranks call it, in the same order.

    Attributes:
        name: the backend, as in the config and the records.
        rank: 0 to size - 1.
        size: number of ranks.
        activity: what this rank is doing; whoever works on tells it, so that hangs are noticed.
    """

    name: str
    rank: int
    size: int
    activity: Activity

    def all_reduce(self, tensor: Tensor, operation: Operation = "sum") -> None:
        """Replace the tensor, in place, by its sum, maximum or minimum over all ranks."""
        ...

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""
        ...

    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""
        ...

    def broadcast_object(self, value: Any) -> Any:
        """The small value that rank 0 gave, of what JSON knows: tuples become lists."""
        ...

    def barrier(self) -> None:
        """Wait for all ranks."""
        ...

    def close(self, failure: str | None = None) -> None:
        """Leave the group; with a failure, the others are told of it first."""
        ...


class SingleProcess:
    """One rank alone.

    Args:
        limits: it watches its own progress by these; not at all without.
    """

    name = "none"
    rank = 0
    size = 1

    def __init__(self, limits: Limits | None = None) -> None:
        self.activity = Activity()
        self._watchdog = Watchdog(self.activity, limits, 0, 1, None) if limits else None
        if self._watchdog:
            self._watchdog.start()

    def all_reduce(self, tensor: Tensor, operation: Operation = "sum") -> None:
        """Nothing to add."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensor as the only row."""
        return tensor.unsqueeze(0).clone()

    def broadcast(self, tensor: Tensor) -> None:
        """Nothing to change."""

    def broadcast_object(self, value: Any) -> Any:
        """The value as it would arrive elsewhere."""
        return json.loads(json.dumps(value))

    def barrier(self) -> None:
        """Nobody to wait for."""

    def close(self, failure: str | None = None) -> None:  # noqa: ARG002 - nobody to tell
        """Nothing to leave."""
        if self._watchdog:
            self._watchdog.stop()


def open_communicator(config: Parallel, longest_wait_s: float = 0.0) -> Communicator:
    """Join the ranks that the launcher started, by the backend that the config names.

    Args:
        config: how.
        longest_wait_s: that a rank may honestly keep the others waiting while it makes progress.

    Raises:
        UserInputError: the backend does not fit the number of ranks.
        MachineError: the ranks cannot find each other.
    """
    info = discover(os.environ)
    limits = Limits(config.timeout_s, config.startup_timeout_s)
    backend = config.backend
    if backend == "auto":
        backend = "none" if info.size == 1 else "gloo"
    if backend == "none":
        if info.size > 1:
            raise UserInputError(f"parallel.backend is none, but {info.launcher} started {info.size} ranks; use auto")
        return SingleProcess(limits)
    from matsci_hpc.parallel.deadline import meeting_within

    with meeting_within(config.startup_timeout_s, info.rank):
        return _meet(backend, info, config, limits, longest_wait_s)


def _meet(backend: str, info: RankInfo, config: Parallel, limits: Limits, longest_wait_s: float) -> Communicator:
    from matsci_hpc.parallel.heartbeat import Heartbeats
    from matsci_hpc.parallel.rendezvous import open_store, store_is_on_first
    from matsci_hpc.parallel.torch_distributed import TorchCommunicator

    startup = timedelta(seconds=config.startup_timeout_s)
    store = open_store(info, os.environ, startup)
    activity = Activity()
    heartbeats = Heartbeats(
        (store.host, store.port),
        activity,
        info.rank,
        info.size,
        limits.interval_s(info.size),
        startup,
        on_first=store_is_on_first(os.environ),
    )
    # The watchdog knows who is at fault, a collective only that it waits: so that one speaks first.
    backstop = timedelta(seconds=max(config.startup_timeout_s, 2 * config.timeout_s, longest_wait_s) + 30)
    watchdog = Watchdog(activity, limits, info.rank, info.size, heartbeats)
    return TorchCommunicator(backend, info, store, backstop, activity, watchdog)
