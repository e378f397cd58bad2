"""The MPI driver of preparation: claim a block of inputs, convert it, write its shard; repeat until none is left.

A shard holds the usable ones among `shard_size` consecutive inputs, so its content depends on the input and the config
alone, whoever converts it. Next to each finished shard lies a small record (in OUT/.work) with its checksum, statistics
and rejected inputs. A restart takes shards whose record and checksum hold as done. When all are done, rank 0 makes the
index, the quarantine and the manifest from the records and removes OUT/.work; a signal to another rank then comes too
late to stop anything.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.conversion import convert
from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.folder_lock import LOCK, FolderLock
from matsci_hpc.interruption import Interruption
from matsci_hpc.parallel.mpi import World
from matsci_hpc.shards.assemble import assemble, shard_name
from matsci_hpc.shards.layout import FORMAT_VERSION
from matsci_hpc.shards.manifest import (
    MANIFEST,
    PROVENANCE,
    Manifest,
    ShardRecord,
    holds_something_else,
    read_manifest,
    write_manifest,
)
from matsci_hpc.shards.records import BlockRecord, finished_block, write_block_record
from matsci_hpc.shards.statistics import shard_statistics
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.base import Source
from matsci_hpc.sources.files import UNPACKED
from matsci_hpc.sources.record_files import STAGED
from matsci_hpc.sources.registry import open_source
from matsci_hpc.telemetry.provenance import describe_machine
from matsci_hpc.whole_files import checksum, output_error, write_atomic
from matsci_hpc.work_sharing import BlockLoop, BlockResult, RankWork

WORK = ".work"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PrepResult:
    """What preparation did.

    Attributes:
        manifest: the finished data set.
        time_s: wall time of this call.
        reused_shards: shards that an earlier, interrupted call had finished; all of them if there was nothing to do.
    """

    manifest: Manifest
    time_s: float
    reused_shards: int


def prepare(config: PrepConfig, world: World) -> PrepResult:
    """Write the data set that a config describes; collective over all ranks of `world`.

    Raises:
        UserInputError: bad input, no usable structure in it, an output folder that holds something else, or one that
            another job works on.
        MachineError: the output cannot be written for want of space.
        StoppedError: a signal asked for the end.
    """
    interruption = Interruption()
    work = config.out / WORK
    second = f"{config.out}: {{holder}} is preparing this data set; wait for it, end it, or choose another `out`"
    lock = FolderLock(work, second)

    def first(task: Callable[[], T]) -> T:
        return world.on_first(lambda: interruption.obeyed_at_once(task))

    with interruption.noted():
        try:
            return _prepare(config, world, lock, interruption, first)
        finally:
            lock.release()


def _prepare(
    config: PrepConfig, world: World, lock: FolderLock, interruption: Interruption, first: Callable[..., Any]
) -> PrepResult:
    start_s = time.monotonic()
    source, fingerprint = first(lambda: _open(config, lock))
    done = first(lambda: _already_done(config.out, fingerprint))
    if done is not None:
        return PrepResult(done, time.monotonic() - start_s, len(done.shards))
    loop = BlockLoop(world, source, config.shard_size, interruption)
    ranks = loop.run(lambda watched, number: _one_block(config, watched, number, fingerprint))

    def finish() -> tuple[Manifest, float]:
        return _finish(config, source, fingerprint, ranks, start_s, lock)

    manifest, time_s = first(finish)
    return PrepResult(manifest, time_s, sum(each.kept_shards for each in ranks))


def _open(config: PrepConfig, lock: FolderLock) -> tuple[Source, str]:
    _claim_folder(config.out, lock)
    try:
        source = open_source(config, config.out / WORK)
    except MatsciError:
        lock.release()
        _leave_folder(config.out)
        raise
    what = config.model_dump(mode="json", exclude={"out": True, "job": True, "source": {"path", "properties"}})
    if config.split_by == "id":  # data sets from before there was a choice keep their fingerprint
        del what["split_by"]
    text = json.dumps([FORMAT_VERSION, what, source.identity], sort_keys=True)
    return source, xxhash.xxh3_128_hexdigest(text.encode())


def _claim_folder(out: Path, lock: FolderLock) -> None:
    """Make and lock OUT/.work, in a new or empty folder or in one that an earlier preparation made."""
    try:
        if holds_something_else(out):
            raise UserInputError(f"{out}: the folder is not empty and holds no data set; choose another `out`")
        while not (out / MANIFEST).is_file():
            (out / WORK).mkdir(parents=True, exist_ok=True)
            if not os.access(out, os.W_OK):
                raise PermissionError(13, "Permission denied")
            # It is gone where somebody else has finished, or given up, since the line before.
            with contextlib.suppress(FileNotFoundError):
                lock.acquire()
                return
    except OSError as error:
        raise output_error(out, error) from None


def _leave_folder(out: Path) -> None:
    """Take back what `_claim_folder` made and what was unpacked, unless there is something else in it."""
    for name in (UNPACKED, LOCK):
        with contextlib.suppress(OSError):
            (out / WORK / name).unlink()
    shutil.rmtree(out / WORK / STAGED, ignore_errors=True)
    for folder in (out / WORK, out):
        try:
            folder.rmdir()
        except OSError:
            return


def _already_done(out: Path, fingerprint: str) -> Manifest | None:
    if not (out / MANIFEST).is_file():
        return None
    shutil.rmtree(out / WORK, ignore_errors=True)  # an archive that was unpacked only to compare
    manifest = read_manifest(out)
    if manifest.fingerprint != fingerprint:
        raise UserInputError(
            f"{out}: holds a finished data set made from another input or config; choose another `out` or remove it"
        )
    return manifest


def _one_block(config: PrepConfig, source: Source, number: int, fingerprint: str) -> BlockResult:
    """Convert a block, unless an earlier call has done so."""
    finished = finished_block(config.out, config.out / WORK, number, fingerprint)
    record = finished or _convert_block(config, source, number, fingerprint)
    kept = finished is not None
    return BlockResult(len(record.quarantined), kept=kept, kept_shard=kept and record.shard is not None)


def _convert_block(config: PrepConfig, source: Source, number: int, fingerprint: str) -> BlockRecord:
    start = number * config.shard_size
    stop = min(start + config.shard_size, len(source))
    content, rejected = convert(config, source, start, stop, number)
    shard, statistics = None, {}
    if content is not None:
        content.attributes["fingerprint"] = fingerprint  # by which a shard of another data set is known
        image = shard_image(content)
        path = config.out / shard_name(number)
        write_atomic(path, image)
        shard = ShardRecord(
            file=path.name,
            bytes=len(image),
            xxh3_128=checksum(image),
            number=number,
            samples=content.samples,
            atoms=content.atoms,
            edges=content.edges,
        )
        statistics = shard_statistics(content, source.targets, list(source.splits))
    record = BlockRecord(fingerprint=fingerprint, shard=shard, statistics=statistics, quarantined=rejected)
    write_block_record(config.out / WORK, number, record)
    return record


def _finish(
    config: PrepConfig, source: Source, fingerprint: str, ranks: list[RankWork], start_s: float, lock: FolderLock
) -> tuple[Manifest, float]:
    work = config.out / WORK
    blocks = -(-len(source) // config.shard_size)
    try:
        manifest = assemble(config.out, work, blocks, len(source), source, config.neighbors, fingerprint)
        _sweep(config.out, {shard.file for shard in manifest.shards})
        time_s = time.monotonic() - start_s
        _write_provenance(config, manifest, ranks, time_s)
        # Last of all: a folder with a manifest is a whole data set.
        write_manifest(config.out, manifest)
        # NFS keeps a file that is still open, and its folder: whoever takes the lock now finds the manifest.
        lock.release()
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise output_error(Path(error.filename or config.out), error) from None
    return manifest, time_s


def _sweep(out: Path, shards: set[str]) -> None:
    """Remove what killed ranks left half-written, and shards that an interrupted run of another config left."""
    for path in [*out.glob(".*.part"), *out.glob("shard-*.h5")]:
        if path.name not in shards:
            path.unlink(missing_ok=True)


def _write_provenance(config: PrepConfig, manifest: Manifest, ranks: list[RankWork], time_s: float) -> None:
    record: dict[str, Any] = describe_machine() | {
        "config": config.model_dump(mode="json"),
        "ranks": len(ranks),
        "time_s": round(time_s, 3),
        "samples_per_s": round(manifest.counts.samples / max(time_s, 1e-9), 1),
        "reused_shards": sum(each.kept_shards for each in ranks),
        "work_of_ranks": [asdict(each) for each in ranks],
    }
    write_atomic(config.out / PROVENANCE, f"{json.dumps(record, indent=1)}\n".encode())
