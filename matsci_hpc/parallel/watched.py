"""What every backend of several ranks shares: where they meet, and how hung, dead and failed ranks are found."""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from matsci_hpc.errors import RankError
from matsci_hpc.parallel.activity import Activity
from matsci_hpc.parallel.communicator import Operation, Pending
from matsci_hpc.parallel.discovery import RankInfo
from matsci_hpc.parallel.heartbeat import Heartbeats
from matsci_hpc.parallel.rendezvous import open_store, store_is_on_first
from matsci_hpc.parallel.watchdog import LOST, Limits, Watchdog

POLL_S = (20e-6, 1e-3)
"""Shortest and longest sleep between two looks at a collective that does not report by itself."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Ranks that have found each other, before any backend joins them.

    Attributes:
        info: this rank.
        store: key-value store of the job.
        patience: longest wait in a collective. The watchdog knows who is at fault, a collective only that it waits:
            so this is long enough for that one to speak first.
        activity: what this rank is doing.
        watchdog: of this rank, not yet started.
    """

    info: RankInfo
    store: TCPStore
    patience: timedelta
    activity: Activity
    watchdog: Watchdog


def meet(info: RankInfo, limits: Limits, longest_wait_s: float = 0.0) -> Meeting:
    """Find the other ranks; each has published its first beat afterwards.

    Args:
        info: this rank.
        limits: longest times without progress.
        longest_wait_s: that a rank may honestly keep the others waiting while it makes progress.

    Raises:
        MachineError: the ranks cannot find each other.
    """
    store = open_store(info, os.environ, timedelta(seconds=limits.startup_s))
    return _meet_at(store, info, limits, longest_wait_s, on_first=store_is_on_first(os.environ))


def meet_again(meeting: Meeting, limits: Limits, tell: Callable[[int], int]) -> Meeting:
    """Another meeting of ranks that are joined already, with a store of its own, for one more backend in a process.

    Args:
        meeting: the first one.
        limits: longest times without progress.
        tell: gives every rank the number that rank 0 has.

    Raises:
        RankError: this rank cannot reach the store.
    """
    info, host = meeting.info, meeting.store.host
    patience = timedelta(seconds=limits.startup_s)
    first = info.rank == 0
    try:
        own = TCPStore(host, 0, info.size, is_master=True, timeout=patience, wait_for_workers=False) if first else None
        port = tell(own.port if own else 0)
        store = own or TCPStore(host, port, info.size, is_master=False, timeout=patience)
    except (DistError, RuntimeError) as error:
        raise RankError(info.rank, f"cannot meet the others at {host} again: {str(error).splitlines()[0]}") from None
    return _meet_at(store, info, limits, 0.0, on_first=True)


def _meet_at(store: TCPStore, info: RankInfo, limits: Limits, longest_wait_s: float, *, on_first: bool) -> Meeting:
    activity = Activity()
    try:
        heartbeats = Heartbeats(
            (store.host, store.port),
            activity,
            info.rank,
            info.size,
            limits.interval_s(info.size),
            timedelta(seconds=limits.startup_s),
            on_first=on_first,
        )
    except (DistError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RankError(info.rank, f"lost rank 0 while the ranks met ({reason}); its own output says why") from None
    patience = timedelta(seconds=max(limits.startup_s, 2 * limits.step_s, longest_wait_s) + 30)
    return Meeting(info, store, patience, activity, Watchdog(activity, limits, info.rank, info.size, heartbeats))


class WatchedCommunicator(ABC):
    """A communicator whose ranks watch each other. A backend adds the collectives, and calls them by `guarded`.

    Args:
        name: of the backend.
        meeting: of the ranks.

    Attributes:
        faults: exceptions by which the backend's library tells that a collective failed.
    """

    faults: tuple[type[BaseException], ...] = (RuntimeError,)

    def __init__(self, name: str, meeting: Meeting) -> None:
        self.name = name
        self.rank = meeting.info.rank
        self.size = meeting.info.size
        self.activity = meeting.activity
        self.watchdog = meeting.watchdog
        self._store = meeting.store  # on the first rank it is the server, which ends when nobody holds it any more

    @abstractmethod
    def all_reduce_start(self, tensor: Tensor, operation: Operation = "sum") -> Pending:
        """Begin an `all_reduce`."""

    @abstractmethod
    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks as [size, ...]."""

    @abstractmethod
    def broadcast(self, tensor: Tensor) -> None:
        """Replace the tensor, in place, by that of rank 0."""

    @abstractmethod
    def leave(self) -> None:
        """Give up the backend, without a word to the others."""

    def all_reduce(self, tensor: Tensor, operation: Operation = "sum") -> None:
        """Replace the tensor, in place, by its sum, maximum or minimum over all ranks."""
        self.all_reduce_start(tensor, operation).wait()

    def broadcast_object(self, value: Any) -> Any:
        """The small value that rank 0 gave, of what JSON knows: tuples become lists."""
        data = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor([len(data)])
        self.broadcast(length)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.broadcast(content)
        return json.loads(content.numpy().tobytes())

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.all_reduce(torch.zeros(1))

    def close(self, failure: str | None = None) -> None:
        """Leave the group; with a failure, the others are told of it first."""
        if failure is None:
            self.watchdog.stop()
        else:
            self.watchdog.farewell(failure)
        self.leave()

    def guarded(self, collective: Callable[[], Any]) -> None:
        """Run what waits for the other ranks.

        Raises:
            RankError: a rank it needs is gone; it is named.
        """
        try:
            with self.activity.in_collective():
                collective()
        except self.faults as error:
            self.fail(str(error).splitlines()[0])

    def wait_until(self, done: Callable[[], bool], longest_s: float = POLL_S[1]) -> None:
        """Wait for a collective that does not fail by itself when a rank is gone.

        Args:
            done: looks, without waiting, whether it is over.
            longest_s: longest sleep between two looks.

        Raises:
            RankError: it is not, and a rank is gone; it is named.
        """
        pause_s = POLL_S[0]
        with self.activity.in_collective():
            while not done():
                if self.watchdog.lost is not None:
                    self._lose(self.watchdog.lost, f"by {self.name}")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)

    def fail(self, reason: str) -> NoReturn:
        """End this rank's part after a collective failed, and say which rank is missing.

        Raises:
            RankError: always.
        """
        self._lose(self.watchdog.who_is_missing(), reason)

    def _lose(self, missing: str, reason: str) -> NoReturn:
        self.watchdog.farewell(f"{LOST} {missing}")
        raise RankError(self.rank, f"lost {missing} ({reason})") from None
