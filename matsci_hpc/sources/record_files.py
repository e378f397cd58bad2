"""Files that hold many records one after the other, so indexed that any rank reads any range of them.

Rank 0 goes through every file once and notes where each STRIDE-th record begins: for 10^8 records that is some 100 MB,
which is little enough to be sent to every rank. A range is read from the mark before it. Compressed files, which cannot
be read from the middle, are unpacked once, next to the output.
"""

import gzip
import io
import tarfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.sources.files import InputFile, list_inputs

STRIDE = 16
"""Records between two marks."""
STAGED = "unpacked"
"""Folder in the staging folder for unpacked copies."""
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A file of records.

    Attributes:
        file: its bytes, and the name that its records are known by.
        split: that all of them belong to, if the config says so.
        origin: the file that people have, or archive and member, for messages.
    """

    file: InputFile
    split: str | None
    origin: str


class DamagedFileError(ValueError):
    """A file of which nobody can tell where its records begin; the message says where it is damaged."""


Scanner = Callable[[BinaryIO, RecordFile], Iterator[int]]
"""Reads a file to its end and gives the byte at which each record begins. May raise DamagedFileError."""


class RecordIndex:
    """Where records lie, numbered through all files.

    Attributes:
        files: in order.
        digest: hash of the names, splits and contents of all files.
        first: int64 [files + 1], number of the first record of each file, and of all records.
    """

    def __init__(self, files: list[RecordFile], scan: Scanner) -> None:
        self.files = files
        digest = xxhash.xxh3_128()
        offsets, begins, first = array("q"), array("q"), array("q", [0])
        number = 0
        for each in files:
            digest.update(repr((each.file.name, each.split, each.file.size)).encode())
            window = _Window(each.file, digest)
            begins.append(len(offsets))
            for place, offset in enumerate(_scanned(window, each, scan)):
                if place % STRIDE == 0:
                    offsets.append(offset)
                number += 1
            first.append(number)
        begins.append(len(offsets))
        self.digest = digest.hexdigest()
        self.first: NDArray[np.int64] = np.array(first, dtype=np.int64)
        self._offset: NDArray[np.int64] = np.array(offsets, dtype=np.int64)
        self._begin: NDArray[np.int64] = np.array(begins, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.first[-1])

    def chunks(self, start: int, stop: int) -> "Iterator[Chunk]":
        """The bytes that hold the records `start` to `stop - 1`, a few at a time, with some before and after them.

        Raises:
            UserInputError: a file has changed since it was indexed, or may not be read.
            MachineError: reading fails.
        """
        file = int(np.searchsorted(self.first, start, side="right")) - 1
        while start < stop and file < len(self.files):
            end = min(stop, int(self.first[file + 1]))
            while start < end:
                place = start - int(self.first[file])
                mark = int(self._begin[file]) + place // STRIDE
                begin = int(self._offset[mark])
                entry = self.files[file].file
                last = mark + 1 == int(self._begin[file + 1])
                size = (entry.size if last else int(self._offset[mark + 1])) - begin
                first = place - place % STRIDE
                data = replace(entry, offset=entry.offset + begin, size=size).read()
                after = min(end, int(self.first[file]) + first + STRIDE)
                yield Chunk(self.files[file], file, data, first, start, after)
                start = after
            file += 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of a file.

    Attributes:
        source: the file.
        number: of the file.
        data: bytes of up to STRIDE records.
        first: number within the file of the first of them.
        start, stop: number among all records of the first that is wanted, and of the one after the last.
    """

    source: RecordFile
    number: int
    data: bytes
    first: int
    start: int
    stop: int

    def wanted(self, index: RecordIndex) -> slice:
        """Which of the records in `data` are wanted."""
        before = int(index.first[self.number]) + self.first
        return slice(self.start - before, self.stop - before)


def list_record_files(
    paths: list[tuple[str | None, Path]], suffixes: tuple[str, ...], staging: Path
) -> list[RecordFile]:
    """Every file of records at the paths: the order is that of the paths, in a folder or archive that of the names.

    Args:
        paths: files (of any name), folders or tar archives, with the split of what they hold.
        suffixes: of files in folders and archives, such as ".xyz"; each may be followed by ".gz".
        staging: folder for unpacked copies.

    Raises:
        UserInputError: a path is missing or unreadable, or holds no such file.
        MachineError: reading or unpacking fails.
    """
    folder = staging / STAGED
    names = distinct_names([path for _, path in paths])
    listed = [
        (name, _list_path(path, name, split, suffixes, folder / str(number)))
        for number, ((split, path), name) in enumerate(zip(paths, names, strict=True))
    ]
    times = Counter(each.file.name for _, files in listed for each in files)
    found = [
        _renamed(each, f"{name}/{each.file.name}") if times[each.file.name] > 1 and name != each.file.name else each
        for name, files in listed
        for each in files
    ]
    packed = [each for each in found if _is_gzip(each.file)]
    if packed:
        plain = {each.file.name for each in found}
        with _open_staged(folder / "records.bin") as target:
            unpacked = {id(each): _unpack(each, plain, target, folder / "records.bin") for each in packed}
        found = [replace(each, file=unpacked.get(id(each), each.file)) for each in found]
    return found


def distinct_names(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart: `data.db`, or `train/data.db` where others are called that.

    Raises:
        UserInputError: a path stands there twice.
    """
    if doubled := [path for path, times in Counter(paths).items() if times > 1]:
        raise UserInputError(f"{doubled[0]}: would be read more than once; name it once in source.path")
    ends = Counter(path.parts[-length:] for path in paths for length in range(1, len(path.parts) + 1))
    names = []
    for parts in (path.parts for path in paths):
        length = next((length for length in range(1, len(parts)) if ends[parts[-length:]] == 1), len(parts))
        names.append(str(Path(*parts[-length:])))
    return names


def _list_path(path: Path, name: str, split: str | None, suffixes: tuple[str, ...], staging: Path) -> list[RecordFile]:
    if path.is_file() and not _is_tar(path):
        return [RecordFile(InputFile(name, path, 0, path.stat().st_size), split, str(path))]
    inputs = list_inputs(path, (*suffixes, ".gz"), staging)
    inputs = [each for each in inputs if each.name.lower().removesuffix(".gz").endswith(suffixes)]
    if not inputs:
        raise UserInputError(f"{path}: holds no {' or '.join(suffixes)} file")
    return [RecordFile(each, split, str(each.path) if path.is_dir() else f"{path}: {each.name}") for each in inputs]


def _renamed(each: RecordFile, name: str) -> RecordFile:
    return replace(each, file=replace(each.file, name=name))


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):  # not to be read, or damaged, which whoever reads it will say
        return False


def _is_gzip(entry: InputFile) -> bool:
    return entry.size > 2 and replace(entry, size=2).read() == b"\x1f\x8b"


def _open_staged(path: Path) -> io.BufferedWriter:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror}") from None


def _unpack(packed_file: RecordFile, plain: set[str], target: io.BufferedWriter, path: Path) -> InputFile:
    """An unpacked copy of a file, under its name without `.gz` unless one of `plain` has that."""
    entry, begin = packed_file.file, target.tell()
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(_Window(entry), _BUFFER_BYTES)) as packed:
            while block := packed.read(_BUFFER_BYTES):
                target.write(block)
        target.flush()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserInputError(f"{packed_file.origin}: damaged or cut off, it cannot be unpacked: {error}") from None
    except OSError as error:
        raise MachineError(f"{packed_file.origin}: unpacking to {path} failed: {error.strerror}") from None
    name = entry.name[:-3] if entry.name.lower().endswith(".gz") else entry.name
    # The end must stay: of what kind a file is goes by it.
    name = f"{entry.name}/{Path(name).name}" if name != entry.name and name in plain else name
    return InputFile(name, path, begin, target.tell() - begin)


def _scanned(window: "_Window", each: RecordFile, scan: Scanner) -> Iterator[int]:
    """Where the records of a file begin. What the scanner leaves unread is read here, for the hash."""
    try:
        with io.BufferedReader(window, _BUFFER_BYTES) as stream:
            yield from scan(cast("BinaryIO", stream), each)
            while stream.read(_BUFFER_BYTES):
                pass
    except DamagedFileError as error:
        raise UserInputError(f"{each.origin}: {error}") from None


class _Window(io.RawIOBase):
    """The bytes of an input as a file of their own, hashed while they are read."""

    def __init__(self, entry: InputFile, digest: xxhash.xxh3_128 | None = None) -> None:
        super().__init__()
        self._left = entry.size
        self._digest = digest
        self._name = str(entry.path)
        try:
            self._file = entry.path.open("rb", buffering=0)
            self._file.seek(entry.offset)
        except OSError as error:
            raise UserInputError(f"{entry.path}: cannot be read: {error.strerror}") from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; 0 at the end of the input."""
        view = memoryview(buffer)[: self._left]
        try:
            count = self._file.readinto(view) or 0
        except OSError as error:
            raise MachineError(f"{self._name}: reading failed: {error.strerror}; run the same command again") from None
        self._left -= count
        if self._digest is not None:
            self._digest.update(view[:count])
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
