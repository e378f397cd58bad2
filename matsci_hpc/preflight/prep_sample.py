"""A few inputs of a preparation, converted as it would: how large and how slow one is, and how many there are."""

import copy
import itertools
import math
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.record_sources import FilesSource
from matsci_hpc.config.sources import FileSource as FileConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.records import Quarantined
from matsci_hpc.sources.base import FlatSource, Source
from matsci_hpc.sources.files import InputFile, is_plain_tar, name_fits, readable_name
from matsci_hpc.sources.record_source import Extent, RecordSource
from matsci_hpc.sources.registry import open_source, reader_of

SAMPLED = 256
"""Inputs converted."""
FLAT_SAMPLED = 16_384
"""Most that are converted of one shard of a source that gives whole arrays: its first input may cost as much as all."""
SLICE = 16
"""Converted between two looks at the clock."""
LIMIT_S = 6.0
"""Time for them, and for listing an archive; the rest of it is extrapolated from what was read by then."""
CIF = (".cif",)


@dataclass(frozen=True, slots=True)
class PrepSample:
    """What a few inputs tell.

    Attributes:
        inputs: of the source.
        exact: whether they were counted to the end.
        sampled, rejected: inputs that were converted, and those of them that are unusable.
        bytes_per_input: in a shard.
        input_s: seconds that one takes on one rank here.
        unpacked_bytes: of the copy that compressed input needs beside the data set.
        unseen: targets of which the part of the input that was looked at has nothing.
    """

    inputs: int
    exact: bool
    sampled: int
    rejected: int
    bytes_per_input: float
    input_s: float
    unpacked_bytes: float = 0.0
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """Inputs of an archive or folder, as far as there was time: some of them, their number, and all their bytes."""

    some: list[InputFile]
    inputs: int
    exact: bool
    bytes: float


def sample_preparation(config: PrepConfig, ranks: int = 1) -> PrepSample:
    """Convert a few inputs in memory.

    Args:
        config: the preparation.
        ranks: that share it. The more there are, the fewer neighbouring shards fall to one.

    Raises:
        UserInputError: the input cannot be read, the table does not fit it, or none of the few is usable.
    """
    with tempfile.TemporaryDirectory(prefix="matsci-check-") as folder:
        unseen: tuple[str, ...] = ()
        source: Source
        if isinstance(config.source, FileConfig):
            listing = list_some(config.source.path, Path(folder), suffixes=reader_of(config.source.kind).suffixes)
            extent = Extent(listing.inputs, listing.exact, listing.bytes if _is_packed(config.source) else 0.0)
            source = _file_source(config, config.source, listing)
        elif isinstance(config.source, FilesSource):
            records: RecordSource = reader_of(config.source.kind).some_of(config.source, config.splits, Path(folder))
            source, extent, unseen = records, records.records.extent, records.unseen
            if not len(records):  # perhaps other files hold some, and what reads all of them says if not
                source = open_source(config, Path(folder))
                extent = replace(extent, inputs=len(source), exact=True)
        else:
            source = open_source(config, Path(folder))
            extent = Extent(len(source), exact=True)
        if isinstance(source, FlatSource):
            sampled, rejected, size, taken_s = _convert_flat(config, source, ranks)
        else:
            sampled, rejected, size, taken_s = _convert(config, source)
    return PrepSample(
        inputs=extent.inputs,
        exact=extent.exact,
        sampled=sampled,
        rejected=rejected,
        bytes_per_input=size / sampled,
        input_s=taken_s / sampled,
        unpacked_bytes=extent.unpacked_bytes,
        unseen=unseen,
    )


def list_some(path: Path, folder: Path, limit_s: float = LIMIT_S, suffixes: tuple[str, ...] = CIF) -> Listing:
    """Some inputs of a source of files.

    Args:
        path: folder or archive.
        folder: where the few of an archive are unpacked.
        limit_s: longest time for an archive.
        suffixes: which files are meant, as `list_inputs` takes it.

    Raises:
        UserInputError: there is nothing to read.
    """
    try:
        found = _of_folder(path, suffixes) if path.is_dir() else _of_archive(path, folder, limit_s, suffixes)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserInputError(f"{path}: cannot be read: {error}") from None
    if not found.some:
        raise UserInputError(f"{path}: holds no {' or '.join(suffixes)} file")
    return found


def _of_folder(path: Path, suffixes: tuple[str, ...]) -> Listing:
    """Evenly spread files; the whole tree is walked, but no file of it looked at."""
    names = sorted(
        os.path.join(where, name)  # noqa: PTH118 - of a million files
        for where, _, files in os.walk(path)
        for name in files
        if name_fits(name, suffixes)
    )
    chosen = [Path(names[i * len(names) // min(SAMPLED, len(names))]) for i in range(min(SAMPLED, len(names)))]
    some = [
        InputFile(readable_name(each.relative_to(path).as_posix()), each, 0, each.stat().st_size) for each in chosen
    ]
    return Listing(some, len(names), exact=True, bytes=0.0)


def _of_archive(path: Path, folder: Path, limit_s: float, suffixes: tuple[str, ...]) -> Listing:
    """The first files, unpacked; the number of all, or an estimate by how far the archive was read in time."""
    some: list[InputFile] = []
    inputs, size, exact = 0, 0, True
    target = folder / "inputs.bin"
    end_s = time.monotonic() + limit_s
    with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as archive, target.open("wb") as file:
        for member in archive:
            if not member.isfile() or not name_fits(member.name, suffixes):
                continue
            inputs += 1
            size += member.size
            if len(some) < SAMPLED:
                some.append(_unpack(archive, member, file, target))
            if time.monotonic() > end_s:
                exact = False
                break
        read, whole = raw.tell(), path.stat().st_size
    scale = 1.0 if exact else whole / max(read, 1)
    return Listing(some, round(inputs * scale), exact, size * scale)


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, file: IO[bytes], target: Path) -> InputFile:
    content = archive.extractfile(member)
    data = content.read() if content is not None else b""
    found = InputFile(readable_name(member.name), target, file.tell(), len(data))
    file.write(data)
    file.flush()
    return found


def _is_packed(source: FileConfig) -> bool:
    """Whether it is an archive that no rank can read from the middle."""
    return not source.path.is_dir() and not is_plain_tar(source.path)


def _file_source(config: PrepConfig, files: FileConfig, listing: Listing) -> Source:
    from matsci_hpc.sources.properties import read_properties

    source: Source = reader_of(files.kind).of(files, listing.some, read_properties(files), config.splits)
    return source


def _convert(config: PrepConfig, source: Source) -> tuple[int, int, int, float]:
    """Inputs converted, rejected ones, bytes of their shard, and seconds without the imports."""
    from matsci_hpc.conversion import block_content, read_block
    from matsci_hpc.shards.writer import shard_image

    structures, edges, rejected = read_block(config, source, 0, 1)  # imports the parser, and does not count
    count, start_s = 1, time.perf_counter()
    for start, stop in _slices(1, min(SAMPLED, len(source))):
        more = read_block(config, source, start, stop)
        structures, edges, rejected = structures + more[0], edges + more[1], rejected + more[2]
        count = stop
        if time.perf_counter() - start_s > LIMIT_S:
            break
    if not structures:
        raise UserInputError(f"none of {count} inputs is usable, the first because: {rejected[0].reason}")
    size = len(shard_image(block_content(config, source, structures, edges, 0)))
    return count, len(rejected), size, (time.perf_counter() - start_s) * count / max(count - 1, 1)


def _convert_flat(config: PrepConfig, source: Source, ranks: int) -> tuple[int, int, int, float]:
    """The same for the first shards of a source that preparation asks for whole arrays, not for objects.

    Clouds are drawn by blocks, and a rank keeps the last one: of small shards as many are converted as fall to one rank
    for each block, since the first of them takes the time of all clouds in it.
    """
    from matsci_hpc.conversion import convert
    from matsci_hpc.shards.writer import shard_image
    from matsci_hpc.sources.cloud_generator import BLOCK
    from matsci_hpc.training.allocator import keep_freed_memory

    keep_freed_memory()  # as preparation does
    count = min(config.shard_size, len(source), FLAT_SAMPLED)
    # On a copy, which leaves nothing drawn behind: imports and the first use of memory do not count.
    convert(config, copy.copy(source), 0, count, 0)
    wanted = math.ceil(min(BLOCK, len(source)) / (count * ranks))
    stop, size = 0, 0
    rejected: list[Quarantined] = []
    times_s = [time.perf_counter()]
    while len(times_s) <= wanted and times_s[-1] - times_s[0] <= LIMIT_S:
        start, stop = stop, min(stop + count, len(source))
        content, more = convert(config, source, start, stop, 0)
        rejected += more
        size += 0 if content is None else len(shard_image(content))
        times_s.append(time.perf_counter())
    if not size:
        raise UserInputError(f"none of {stop} inputs is usable, the first because: {rejected[0].reason}")
    first_s, later_s = times_s[1] - times_s[0], times_s[-1] - times_s[1]
    shards = len(times_s) - 1
    # Where the time did not suffice for all shards, those left out take as long as the later ones.
    taken_s = first_s * shards / wanted + later_s * shards / max(shards - 1, 1) * (wanted - 1) / wanted
    return stop, len(rejected), size, taken_s


def _slices(start: int, stop: int) -> Iterator[tuple[int, int]]:
    return itertools.pairwise([*range(start, stop, SLICE), stop])
