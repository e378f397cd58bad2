"""Signs of life: each rank publishes what it is doing in the job's store, and some read what all of them do."""

import json
import os
import socket
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from matsci_hpc.parallel.activity import Activity

WATCHERS = (0, 1)
"""Ranks that look at all others: two, so that one of them is watched by the other."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a rank last said of itself.

    Attributes:
        number: grows with every beat.
        step, phase, count, waiting: its activity.
        host: its node.
        process: its process on that node.
        ended: why it ended, if it could still say so.
    """

    number: int
    step: int
    phase: str
    count: int
    waiting: bool
    host: str
    process: int
    ended: str | None = None

    def encode(self) -> str:
        """As text for the store."""
        return json.dumps([getattr(self, name) for name in self.__dataclass_fields__])

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """The beat that was encoded."""
        return cls(*json.loads(text))

    def is_gone(self) -> bool:
        """Whether the process is seen to be dead, which only its own node can tell."""
        if self.host != socket.gethostname():
            return False
        try:
            state = Path(f"/proc/{self.process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return not _exists(self.process)
        return state in {"Z", "X"}


class Heartbeats:
    """Publishes this rank's activity now and then, and on a watcher reads that of all.

    The thread has a connection of its own to the store: a store that does not answer then blocks nothing else.

    Args:
        address: host and port of the store.
        activity: of this rank.
        rank, size: of this rank.
        interval_s: between beats.
        timeout: longest wait for the store's answer.
        on_first: whether the store lives in the process of rank 0.

    Attributes:
        first: what rank 0 said.
        table: what all ranks said, by rank, on a watcher; replaced as a whole at each reading.
        readings: how often the store has answered.
        failure: why it cannot be reached any more, if it refuses.
    """

    def __init__(
        self,
        address: tuple[str, int],
        activity: Activity,
        rank: int,
        size: int,
        interval_s: float,
        timeout: timedelta,
        *,
        on_first: bool,
    ) -> None:
        self.on_first = on_first
        self.table: list[Beat] = []
        self.readings = 0
        self.failure: str | None = None
        self._address = address
        self._activity = activity
        self._rank = rank
        self._size = size
        self._interval_s = interval_s
        self._number = 0
        self._stopping = threading.Event()
        self._store = self._connect(timeout)
        self.publish()
        self.first = self.read(0)
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; every rank has published its first beat by now."""
        self._thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self._stopping.set()

    def publish(self, ended: str | None = None) -> None:
        """Tell the others what this rank is doing, or why it ends."""
        self._number += 1
        activity = self._activity
        where = (socket.gethostname(), os.getpid())
        beat = Beat(self._number, activity.step, activity.phase, activity.count, activity.waiting, *where, ended)
        self._store.set(_key(self._rank), beat.encode())

    def read_all(self) -> list[Beat]:
        """What all ranks last said.

        Raises:
            RuntimeError: the store cannot be reached.
        """
        return [Beat.decode(each) for each in self._store.multi_get([_key(rank) for rank in range(self._size)])]

    def read(self, rank: int) -> Beat:
        """What one rank last said."""
        return Beat.decode(self._store.get(_key(rank)))

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self.publish()
                if self._rank in WATCHERS:
                    self.table = self.read_all()
                    self.first = self.table[0]
                else:
                    self.first = self.read(0)  # also an answer, by which a dead store is noticed
            except (DistError, RuntimeError) as error:
                self.failure = str(error).splitlines()[0]
                return
            self.readings += 1

    def _connect(self, timeout: timedelta) -> TCPStore:
        host, port = self._address
        return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)


def _key(rank: int) -> str:
    return f"matsci-hpc/beat/{rank}"


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
