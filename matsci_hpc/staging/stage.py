"""Staging by a config: what each rank does, and what all of them do together."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from matsci_hpc.config.data import Staging
from matsci_hpc.errors import MatsciError
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.node import Node, find_node
from matsci_hpc.parallel.together import work_together
from matsci_hpc.shards.manifest import Manifest, read_manifest
from matsci_hpc.shards.reader import Place, ShardMemory
from matsci_hpc.staging.local import check_copy, copy_data_sets, place_of_copy, staging_root
from matsci_hpc.staging.memory import available_bytes
from matsci_hpc.staging.shared import NodeMemory, SharedShards, open_mpi
from matsci_hpc.telemetry.progress import Progress

T = TypeVar("T")
MEGABYTE = 1_000_000


@contextmanager
def staged(
    config: Staging, folders: Sequence[Path], comm: Communicator, progress: Callable[[], None] = lambda: None
) -> Iterator[list[Place]]:
    """Where the shards of data sets are to be read until the end of the context; collective, at both ends.

    Args:
        config: how to stage.
        folders: of the data sets.
        comm: the ranks of the job.
        progress: called after every piece of work, so that a long copy can be told from one that hangs.

    Raises:
        UserInputError: a data set is missing, or the way of staging does not fit the launch.
        MachineError: too little space or memory, or a file is damaged; every rank raises what befell one.
    """
    if config.where == "none" or not folders:
        yield list(folders)
        return
    datasets = _together(comm, lambda: [(folder, read_manifest(folder)) for folder in folders])
    node = find_node(comm)
    if config.where == "local":
        yield _stage_locally(config, datasets, comm, node, progress)
        return
    memory, places = _share(datasets, comm, node, progress)
    try:
        yield list(places)
    except MatsciError:
        # Not every rank need be here, so nothing collective: the memory goes back with the processes.
        raise
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        # Python would wait in MPI's farewell for ranks that wait for this one.
        memory.end_all()
        raise
    for place in places:
        place.clear()
    memory.free()


def _stage_locally(
    config: Staging,
    datasets: list[tuple[Path, Manifest]],
    comm: Communicator,
    node: Node,
    progress: Callable[[], None],
) -> list[Place]:
    root = staging_root(config.folder, os.environ)
    size = sum(record.bytes for _, manifest in datasets for record in (manifest.index, *manifest.shards))
    with _announced(comm, f"{size / 1e9:.3g} GB to {root} on {_each(node)}"):
        work = copy_data_sets(datasets, root) if node.first else _nothing()
        _carry_out(comm, work, size * node.nodes, progress)
    places = _together(comm, lambda: [place_of_copy(root, folder) for folder, _ in datasets])

    def check() -> None:
        for place, (_, manifest) in zip(places, datasets, strict=True):
            check_copy(place, manifest)

    _together(comm, check)
    return list(places)


def _share(
    datasets: list[tuple[Path, Manifest]], comm: Communicator, node: Node, progress: Callable[[], None]
) -> tuple[NodeMemory, list[ShardMemory]]:
    shards = SharedShards(datasets)
    mpi = _together(comm, lambda: open_mpi(comm.size))
    memory = NodeMemory(mpi)
    try:
        available, _ = available_bytes()
        what = f"{shards.bytes / 1e9:.3g} GB into the memory of {_each(node)}, {available / 1e9:.3g} GB are available"
        with _announced(comm, what):
            _together(comm, shards.check_memory if memory.rank == 0 else lambda: None)
            array = _together(comm, lambda: memory.allocate(shards.bytes))
            _carry_out(comm, shards.load(array, memory.rank, memory.ranks), shards.bytes * node.nodes, progress)
            memory.publish()
    except MatsciError:  # every rank has it
        memory.free()
        raise
    return memory, shards.places(array)


def _carry_out(comm: Communicator, work: Generator[int, None, None], total: int, progress: Callable[[], None]) -> None:
    with Progress(total // MEGABYTE, "MB", shown=comm.rank == 0) as shown:
        work_together(comm, work, progress, lambda done: shown.show(done // MEGABYTE))


def _together(comm: Communicator, work: Callable[[], T]) -> T:
    """The result of a short work on this rank; what befalls one rank is raised by all."""
    results: list[T] = []

    def once() -> Generator[int, None, None]:
        results.append(work())
        yield 0

    work_together(comm, once())
    return results[0]


def _nothing() -> Generator[int, None, None]:
    yield from ()


@contextmanager
def _announced(comm: Communicator, what: str) -> Iterator[None]:
    start_s = time.monotonic()
    if comm.rank == 0:
        print(f"staging {what}", flush=True)
    yield
    if comm.rank == 0:
        print(f"staged in {time.monotonic() - start_s:.1f} s", flush=True)


def _each(node: Node) -> str:
    return "this node" if node.nodes == 1 else f"each of {node.nodes} nodes"
