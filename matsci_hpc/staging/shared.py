"""One copy of the shards in the memory of each node, seen by all of its ranks: an MPI-3 shared-memory window."""

import os
import socket
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.shards.manifest import Manifest, ShardRecord
from matsci_hpc.shards.reader import ShardMemory
from matsci_hpc.staging.memory import available_bytes
from matsci_hpc.staging.verified import verified_pieces

PAGE_BYTES = 4096
"""Shards begin at pages, so that a page lies near the rank that loads it."""
INSTEAD = "use data.staging.where=local"


class NodeMemory:
    """Bytes that all ranks of a node share; collective to make.

    Args:
        mpi: as `open_mpi` gives it.

    Attributes:
        rank: number of this rank on its node.
        ranks: ranks on the node.
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._node: Any = None
        self._window: Any = None
        self.rank, self.ranks = 0, 1
        if mpi is None:
            return
        self._node = self._mpi.COMM_WORLD.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.rank, self.ranks = self._node.Get_rank(), self._node.Get_size()

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """The memory, uint8 [size], the same on every rank of the node; collective.

        Raises:
            MachineError: MPI gives none.
        """
        if self._node is None:
            return np.empty(size, dtype=np.uint8)
        try:
            self._window = self._mpi.Win.Allocate_shared(size if self.rank == 0 else 0, 1, comm=self._node)
        except self._mpi.Exception as error:
            raise MachineError(
                f"{socket.gethostname()}: MPI gives no window of {size / 1e9:.3g} GB: {error}; {INSTEAD}"
            ) from None
        memory, _ = self._window.Shared_query(0)
        self._window.Lock_all(self._mpi.MODE_NOCHECK)
        return np.frombuffer(memory, dtype=np.uint8, count=size)

    def publish(self) -> None:
        """Let every rank of the node see what all of them have written; collective."""
        if self._window is not None:
            self._window.Sync()
            self._node.Barrier()
            self._window.Sync()

    def free(self) -> None:
        """Give the memory back; collective. Nobody may look at it afterwards."""
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None
        if self._node is not None:
            self._node.Free()
            self._node = None

    def end_all(self) -> None:
        """End every rank of the job, where this one cannot go on and the others would wait for it."""
        if self._mpi is not None:
            self._mpi.COMM_WORLD.Abort(1)


def open_mpi(size: int) -> Any:
    """mpi4py.MPI, which sees all ranks of the job; None for one process, which shares with nobody.

    Raises:
        UserInputError: the ranks are none of MPI.
        MachineError: MPI cannot be loaded, or does not fit the launcher.
    """
    if size == 1:
        return None
    launcher = discover(os.environ).launcher
    if launcher == "torchrun":
        raise UserInputError(
            "data.staging.where: shared needs ranks that MPI started (mpirun, srun --mpi=...), these are torchrun's; "
            f"{INSTEAD}"
        )
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise MachineError(
            f"data.staging.where: shared needs MPI, which cannot be loaded ({reason}); {INSTEAD}"
        ) from None
    seen = MPI.COMM_WORLD.Get_size()
    if seen != size:
        raise MachineError(
            f"data.staging.where: shared needs MPI, which sees {seen} of the {size} ranks that {launcher} started; "
            f"under Slurm try `srun --mpi=pmix` or `--mpi=pmi2`, or {INSTEAD}"
        )
    return MPI


class SharedShards:
    """The shards of some data sets, end to end in the memory of a node.

    Args:
        datasets: folder and manifest of each.
    """

    def __init__(self, datasets: Sequence[tuple[Path, Manifest]]) -> None:
        self._datasets = datasets
        shards = [(folder, record) for folder, manifest in datasets for record in manifest.shards]
        ends = np.cumsum([-(-record.bytes // PAGE_BYTES) * PAGE_BYTES for _, record in shards], dtype=np.int64)
        starts = [0, *ends.tolist()]
        self.bytes = starts[-1]
        self._shards: list[tuple[Path, ShardRecord, int]] = [
            (folder, record, start) for (folder, record), start in zip(shards, starts, strict=False)
        ]

    def check_memory(self) -> None:
        """Refuse what this node cannot hold, before the kernel kills the job for it.

        Raises:
            MachineError: there is too little memory.
        """
        available, limit = available_bytes()
        if self.bytes > available:
            raise MachineError(
                f"{socket.gethostname()}: staging needs {self.bytes / 1e9:.3g} GB of memory, {available / 1e9:.3g} GB "
                f"are available ({limit}); ask for more memory, or {INSTEAD}"
            )

    def load(self, memory: NDArray[np.uint8], rank: int, ranks: int) -> Generator[int, None, None]:
        """Read this rank's part of the shards into the memory; gives the bytes read, piece by piece.

        Args:
            memory: uint8 [bytes].
            rank: number of this rank on its node.
            ranks: ranks on the node.

        Raises:
            MachineError: a shard is missing or damaged.
        """
        for folder, record, start in self._shards[rank::ranks]:
            image = memory[start : start + record.bytes].data
            for piece in verified_pieces(folder / record.file, record, image):
                yield len(piece)

    def places(self, memory: NDArray[np.uint8]) -> list[ShardMemory]:
        """Each data set's shards in the memory, read-only."""
        view = memory.view()
        view.flags.writeable = False
        images: list[dict[str, Any]] = [{} for _ in self._datasets]
        index = {folder: number for number, (folder, _) in enumerate(self._datasets)}
        for folder, record, start in self._shards:
            images[index[folder]][record.file] = view[start : start + record.bytes]
        return [ShardMemory(folder, own) for (folder, _), own in zip(self._datasets, images, strict=True)]
