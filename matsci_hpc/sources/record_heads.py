"""The beginnings of some of the files of records, for a look at an input that may be far too large to be read."""

import io
import lzma
import tarfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.files import InputFile, is_plain_tar, name_fits, readable_name
from matsci_hpc.sources.record_files import (
    GZIP,
    STAGED,
    distinct_names,
    files_of_path,
    is_gzip,
    is_tar,
    open_staged,
    plain_name,
    refuse_doubled,
)
from matsci_hpc.sources.record_index import RecordFile, RecordIndex, Window
from matsci_hpc.sources.record_source import Extent

MOST_FILES = 16
"""Files and archives that are looked into, evenly spread."""
MOST_RECORDS = 1024
"""Records that are looked at, as many in each file."""
MOST_BYTES = 1 << 23
"""Bytes that are unpacked at first; more if no record ends in them."""
MOST_BYTES_EVER = 1 << 28
"""Bytes in which a record has to end."""
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file of records, or the whole of it.

    Attributes:
        file: as far as it goes.
        stored_bytes: of the input, compressed as it may be, in which it stands.
        packed: whether it is unpacked.
    """

    file: RecordFile
    stored_bytes: float
    packed: bool


@dataclass(slots=True)
class Heads:
    """Beginnings of files, and how much they are of all.

    Attributes:
        found: the beginnings.
        stored_bytes: of all files.
        packed_bytes: of all files that have to be unpacked, as they are stored.
        whole: whether there are no other files.
    """

    found: list[Head] = field(default_factory=list)
    stored_bytes: int = 0
    packed_bytes: int = 0
    whole: bool = True

    @property
    def records(self) -> int:
        """Most records to look at in each of them."""
        return max(1, MOST_RECORDS // max(len(self.found), 1))

    def extent(self, index: RecordIndex) -> Extent:
        """What the records that were found in them tell of the whole input."""
        packed = [each for each in self.found if each.packed]
        unpacked_bytes: float = sum(each.file.file.size for each in packed)
        if self.whole and index.whole:
            return Extent(len(index), exact=True, unpacked_bytes=unpacked_bytes)
        parts = zip(self.found, index.ends, strict=True)
        looked_at = sum(each.stored_bytes * end / max(each.file.file.size, 1) for each, end in parts)
        unpacked_bytes *= self.packed_bytes / max(sum(each.stored_bytes for each in packed), 1)
        return Extent(
            round(len(index) * self.stored_bytes / max(looked_at, 1.0)), exact=False, unpacked_bytes=unpacked_bytes
        )


@dataclass(frozen=True, slots=True)
class _Archive:
    """A compressed archive, of `size` bytes."""

    path: Path
    split: str | None
    size: int


@dataclass(frozen=True, slots=True)
class _Most:
    """Of one file or archive: bytes to unpack, and files to look into."""

    bytes: int
    files: int


def list_heads(
    paths: list[tuple[str | None, Path]], suffixes: tuple[str, ...], staging: Path, most_bytes: int = MOST_BYTES
) -> Heads:
    """Beginnings of some files of records at the paths.

    Args:
        paths: files, folders or tar archives, with the split of what they hold.
        suffixes: of files in folders and archives; each may be followed by ".gz".
        staging: folder for what is unpacked.
        most_bytes: to unpack, of all files together.

    Raises:
        UserInputError: a path is missing or unreadable, or holds no such file.
        MachineError: reading or unpacking fails.
    """
    stored: list[RecordFile | _Archive] = []
    listed: list[tuple[Path, list[RecordFile]]] = []
    for name, (split, path) in zip(distinct_names([path for _, path in paths]), paths, strict=True):
        if path.is_file() and is_tar(path) and not is_plain_tar(path):
            stored.append(_Archive(path, split, path.stat().st_size))
            listed.append((path, []))
        else:
            files = files_of_path(path, name, split, suffixes, staging)  # of a folder or a plain archive the names
            stored += files
            listed.append((path, files))
    refuse_doubled(listed)
    chosen = evenly_spread(len(stored), MOST_FILES)
    heads = Heads(whole=len(chosen) == len(stored))
    most = _Most(most_bytes // len(chosen), MOST_RECORDS // len(chosen))
    with open_staged(staging / STAGED / "heads.bin") as target:
        for number, each in enumerate(stored):
            if number in chosen:
                looked_at, whole = _look_into(each, suffixes, target, most)
                packed = any(head.packed for head in looked_at)
                heads.found += looked_at
                heads.whole &= whole
            else:
                packed = isinstance(each, _Archive) or each.file.name.lower().endswith(".gz")
            size = each.size if isinstance(each, _Archive) else each.file.size
            heads.stored_bytes += size
            heads.packed_bytes += size if packed else 0
    return heads


def evenly_spread(count: int, most: int) -> set[int]:
    """At most so many of the numbers 0 to `count - 1`."""
    chosen = min(count, most)
    return {number * count // chosen for number in range(chosen)}


def _look_into(
    stored: RecordFile | _Archive, suffixes: tuple[str, ...], target: io.BufferedWriter, most: _Most
) -> tuple[list[Head], bool]:
    """Beginnings of one file or of the files in an archive, and whether there are no others."""
    if isinstance(stored, _Archive):
        return _of_archive(stored, suffixes, target, most)
    if not is_gzip(stored.file):
        return [Head(stored, stored.file.size, packed=False)], True
    begin = target.tell()
    with io.BufferedReader(Window(stored.file), _BLOCK_BYTES) as stream:
        used, ended = _unzip(cast("BinaryIO", stream), most.bytes, stored.origin, target)
    file = _written(target, begin, plain_name(stored.file.name))
    return [Head(replace(stored, file=file, cut=not ended, stored_bytes=None), used, packed=True)], True


def _of_archive(
    archive: _Archive, suffixes: tuple[str, ...], target: io.BufferedWriter, most: _Most
) -> tuple[list[Head], bool]:
    """As many files of the beginning of an archive as there are bytes for, and of many some, evenly spread."""
    found: list[RecordFile] = []
    first, ended = target.tell(), True
    try:
        with archive.path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as members:
            for member in members:
                if not member.isfile() or not name_fits(member.name.lower().removesuffix(".gz"), suffixes):
                    continue
                name, begin = readable_name(member.name), target.tell()
                left = most.bytes - (begin - first)
                if left <= 0:
                    ended = False
                    break
                origin = f"{archive.path}: {name}"
                content = cast("io.BufferedReader", members.extractfile(member))
                if content.peek(2)[:2] == GZIP:
                    _, ended = _unzip(content, left, origin, target)
                else:
                    ended = _copy(content, left, target) == member.size
                file = _written(target, begin, plain_name(name))
                found.append(RecordFile(file, archive.split, origin, cut=not ended))
                if not ended:
                    break
            used = raw.tell()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserInputError(f"{archive.path}: cannot be read: {error}") from None
    if not found:
        raise UserInputError(f"{archive.path}: holds no {' or '.join(suffixes)} file")
    # How far the archive was read for each file nobody knows: it is read in blocks that hold many.
    rate = used / max(target.tell() - first, 1)
    chosen = sorted(evenly_spread(len(found), most.files))
    heads = [Head(found[number], found[number].file.size * rate, packed=True) for number in chosen]
    return heads, ended and len(chosen) == len(found)


def _unzip(stream: BinaryIO, most_bytes: int, origin: str, target: io.BufferedWriter) -> tuple[int, bool]:
    """Unpack the first bytes of a gzip file; how many bytes of it these take, and whether it ends there."""
    size, used, engine = 0, 0, zlib.decompressobj(wbits=31)
    block = b""
    try:
        while size < most_bytes and (block := block or stream.read(_BLOCK_BYTES)):
            data = engine.decompress(block, min(most_bytes - size, _BLOCK_BYTES))
            size += target.write(data)
            left = engine.unconsumed_tail or engine.unused_data
            used += len(block) - len(left)
            block = left
            if engine.eof and (block := block.lstrip(b"\0")):  # another part follows
                engine = zlib.decompressobj(wbits=31)
    except zlib.error as error:
        raise UserInputError(f"{origin}: damaged or cut off, it cannot be unpacked: {error}") from None
    ended = not block and not stream.read(1)
    if ended and not engine.eof:
        raise UserInputError(f"{origin}: damaged or cut off, it cannot be unpacked")
    return used, ended


def _copy(stream: BinaryIO, most_bytes: int, target: io.BufferedWriter) -> int:
    """Copy the first bytes; how many there are."""
    size = 0
    while size < most_bytes and (data := stream.read(min(most_bytes - size, _BLOCK_BYTES))):
        size += target.write(data)
    return size


def _written(target: io.BufferedWriter, begin: int, name: str) -> InputFile:
    """What was written from a byte on."""
    target.flush()
    return InputFile(name, Path(target.name), begin, target.tell() - begin)
