"""The one door to the network: what training may ask of the other ranks, whoever carries it out."""

import json
import os
import time
from typing import Any, Literal, Protocol

from torch import Tensor

from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.parallel.activity import Activity
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.watchdog import Limits, Watchdog

Operation = Literal["sum", "max", "min"]


class Pending(Protocol):
    """A collective that has begun and goes on by itself while this rank computes.

    Attributes:
        ended_s: when it was over, by `time.perf_counter`, as far as the backend can tell; known after `wait`.
    """

    ended_s: float

    def wait(self) -> None:
        """Wait until its result is there.

        Raises:
            RankError: a rank it needs is gone.
        """
        ...


class Done:
    """A collective that was over at once."""

    def __init__(self) -> None:
        self.ended_s = time.perf_counter()

    def wait(self) -> None:
        """Nothing to wait for."""


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

    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:
        """Begin an `all_reduce`; the tensor must not be touched before `wait` of the result has returned.

        Others may be started meanwhile, in the same order on all ranks. Every one has to be waited for before any
        other method is called.
        """
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

    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:  # noqa: ARG002 - alone
        """Nothing to add."""
        return Done()

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


def open_communicator(
    config: Parallel, longest_wait_s: float = 0.0, device: str = "cpu", refusal: MatsciError | None = None
) -> Communicator:
    """Join the ranks that the launcher started, by the backend that the config names.

    Args:
        config: how.
        longest_wait_s: that a rank may honestly keep the others waiting while it makes progress.
        device: type of the device that this rank computes on.
        refusal: why this rank cannot go on, if it cannot; told to the others, once all have met.

    Raises:
        UserInputError: the backend does not fit the number of ranks.
        MachineError: the ranks cannot find each other, or a machine lacks what it needs.
    """
    info = discover(os.environ)
    limits = Limits(config.timeout_s, config.startup_timeout_s)
    backend, operations = config.backend, config.horovod_operations
    if backend == "none" or (backend == "auto" and info.size == 1):
        if info.size > 1:
            raise UserInputError(f"parallel.backend is none, but {info.launcher} started {info.size} ranks; use auto")
        if refusal is not None:
            raise refusal
        return SingleProcess(limits)
    from matsci_hpc.parallel.backends import open_backend, require_backend
    from matsci_hpc.parallel.choice import Choice, agree_on_backend
    from matsci_hpc.parallel.deadline import meeting_within
    from matsci_hpc.parallel.horovod import choose_operations, let_waiting_threads_sleep
    from matsci_hpc.parallel.roll_call import call_roll
    from matsci_hpc.parallel.watched import meet

    if backend != "auto":
        try:
            require_backend(backend)
        except MatsciError as error:
            refusal = refusal or error
    let_waiting_threads_sleep()  # now, since ranks may meet through MPI
    with meeting_within(config.startup_timeout_s, info.rank):
        meeting = meet(info, limits, longest_wait_s)
        roll = call_roll(meeting, device, refusal)
        chosen = Choice(backend, operations)
        if backend == "auto":
            chosen = agree_on_backend(meeting, roll, 1e6 * config.bucket_mb)
        if chosen.backend == "horovod":
            choose_operations(chosen.operations or "auto")
        return open_backend(chosen.backend, meeting)
