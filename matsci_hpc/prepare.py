"""The MPI driver of preparation: claim a block of inputs, convert it, write its shard; repeat until none is left.

A shard holds the usable ones among `shard_size` consecutive inputs, so its content depends on the input and the config
alone, whoever converts it. Next to each finished shard lies a small record (in OUT/.work) with its checksum, statistics
and rejected inputs. A restart takes shards whose record and checksum hold as done. When all are done, rank 0 makes the
index, the quarantine and the manifest from the records and removes OUT/.work.
"""

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.conversion import convert
from matsci_hpc.errors import UserInputError
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
)
from matsci_hpc.shards.records import BlockRecord, finished_block, write_block_record
from matsci_hpc.shards.statistics import shard_statistics
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.base import Source
from matsci_hpc.sources.files import UNPACKED
from matsci_hpc.sources.record_files import STAGED
from matsci_hpc.sources.registry import open_source
from matsci_hpc.telemetry.progress import Progress
from matsci_hpc.telemetry.provenance import describe_machine
from matsci_hpc.whole_files import checksum, output_error, write_atomic

WORK = ".work"


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
        UserInputError: bad input, no usable structure in it, or an output folder that holds something else.
        MachineError: the output cannot be written for want of space.
    """
    start_s = time.monotonic()
    source, fingerprint = world.on_first(lambda: _open(config))
    done = world.on_first(lambda: _already_done(config.out, fingerprint))
    if done is not None:
        return PrepResult(done, time.monotonic() - start_s, len(done.shards))
    work = config.out / WORK
    blocks = -(-len(source) // config.shard_size)
    counter = world.counter()
    reused = 0
    with Progress(blocks, "shards", shown=world.rank == 0) as progress:
        while (number := counter.take()) < blocks:
            progress.show(number)
            with world.ending_all():
                finished = finished_block(config.out, work, number, fingerprint)
                if finished is None:
                    _convert_block(config, source, number, fingerprint)
                elif finished.shard is not None:
                    reused += 1
    counter.free()  # collective: all blocks are on disk when it returns
    world.barrier()
    reused = world.sum(reused)
    manifest = world.on_first(lambda: _finish(config, source, blocks, fingerprint))
    time_s = time.monotonic() - start_s
    world.on_first(lambda: _write_provenance(config, manifest, world.size, time_s, reused))
    return PrepResult(manifest, time_s, reused)


def _open(config: PrepConfig) -> tuple[Source, str]:
    _claim_folder(config.out)
    try:
        source = open_source(config, config.out / WORK)
    except UserInputError:
        _leave_folder(config.out)
        raise
    what = config.model_dump(mode="json", exclude={"out": True, "job": True, "source": {"path", "properties"}})
    if config.split_by == "id":  # data sets from before there was a choice keep their fingerprint
        del what["split_by"]
    text = json.dumps([FORMAT_VERSION, what, source.identity], sort_keys=True)
    return source, xxhash.xxh3_128_hexdigest(text.encode())


def _claim_folder(out: Path) -> None:
    """Make OUT/.work, in a new or empty folder or in one that an earlier preparation made."""
    try:
        if holds_something_else(out):
            raise UserInputError(f"{out}: the folder is not empty and holds no data set; choose another `out`")
        if not (out / MANIFEST).is_file():
            (out / WORK).mkdir(parents=True, exist_ok=True)
            if not os.access(out, os.W_OK):
                raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise output_error(out, error) from None


def _leave_folder(out: Path) -> None:
    """Take back what `_claim_folder` made and what was unpacked, unless there is something else in it."""
    with contextlib.suppress(OSError):
        (out / WORK / UNPACKED).unlink()
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


def _convert_block(config: PrepConfig, source: Source, number: int, fingerprint: str) -> None:
    start = number * config.shard_size
    stop = min(start + config.shard_size, len(source))
    content, rejected = convert(config, source, start, stop, number)
    shard, statistics = None, {}
    if content is not None:
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


def _finish(config: PrepConfig, source: Source, blocks: int, fingerprint: str) -> Manifest:
    work = config.out / WORK
    manifest = assemble(config.out, work, blocks, len(source), source, config.neighbors, fingerprint)
    _sweep(config.out, {shard.file for shard in manifest.shards})
    # Last of all: a folder with a manifest is a whole data set.
    text = manifest.model_dump_json(indent=1, exclude_none=True)
    write_atomic(config.out / MANIFEST, f"{text}\n".encode())
    shutil.rmtree(work)
    return manifest


def _sweep(out: Path, shards: set[str]) -> None:
    """Remove what killed ranks left half-written, and shards that an interrupted run of another config left."""
    for path in [*out.glob(".*.part"), *out.glob("shard-*.h5")]:
        if path.name not in shards:
            path.unlink(missing_ok=True)


def _write_provenance(config: PrepConfig, manifest: Manifest, ranks: int, time_s: float, reused: int) -> None:
    record: dict[str, Any] = describe_machine() | {
        "config": config.model_dump(mode="json"),
        "ranks": ranks,
        "time_s": round(time_s, 3),
        "samples_per_s": round(manifest.counts.samples / max(time_s, 1e-9), 1),
        "reused_shards": reused,
    }
    write_atomic(config.out / PROVENANCE, f"{json.dumps(record, indent=1)}\n".encode())
