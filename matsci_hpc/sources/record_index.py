"""Where the records of files lie, so that any rank reads any range of them.

Rank 0 goes through every file once and notes where each STRIDE-th record begins, with a hash of what lies up to the
next: for 10^8 records that is some 100 MB, which is little enough to be sent to every rank. A range is read from the
mark before it, and the hash tells whether the file is still what it was.
"""

import io
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.sources.files import InputFile, changed, stamp

STRIDE = 16
"""Records between two marks."""
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A file of records.

    Attributes:
        file: its bytes, and the name that its records are known by.
        split: that all of them belong to, if the config says so.
        origin: the file that people have, or archive and member, for messages.
        cut: whether `file` breaks off somewhere, and its last record is not to be taken.
        stored_bytes: of the file or archive that `file` is read from, when it was listed; None of a copy.
    """

    file: InputFile
    split: str | None
    origin: str
    cut: bool = False
    stored_bytes: int | None = None


class DamagedFileError(ValueError):
    """A file of which nobody can tell where its records begin; the message says where it is damaged."""


Scanner = Callable[[BinaryIO, RecordFile], Iterator[int]]
"""Reads a file to its end and gives the byte at which each record begins. May raise DamagedFileError."""


class RecordIndex:
    """Where records lie, numbered through all files.

    Args:
        files: in order.
        scan: finds the records.
        most: records of each file; the rest of it is neither read nor counted.

    Attributes:
        files: in order.
        digest: hash of the names, splits and contents of all files.
        first: int64 [files + 1], number of the first record of each file, and of all records.
        ends: bytes of each file up to the end of its last record.
    """

    def __init__(self, files: list[RecordFile], scan: Scanner, most: int | None = None) -> None:
        self.files = files
        self.ends: list[int] = []
        digest = xxhash.xxh3_128()
        offsets, hashes, begins, first = array("q"), array("Q"), array("q"), array("q", [0])
        for each in files:
            digest.update(repr((each.file.name, each.split, each.file.size)).encode())
            pieces = _Pieces(digest)
            begins.append(len(offsets))
            count, end = 0, 0 if each.cut else each.file.size
            for begin, after in _extents(_scanned(Window(each.file, pieces), each, scan), each, most):
                if count % STRIDE == 0:
                    before = pieces.cut(begin)
                    hashes.extend([before] if count else [])  # nobody reads what is before the first record
                    offsets.append(begin)
                count, end = count + 1, after
            hashes.extend([pieces.cut(end)] if count else [])
            self.ends.append(end)
            first.append(first[-1] + count)
        begins.append(len(offsets))
        self.digest = digest.hexdigest()
        self.first: NDArray[np.int64] = np.array(first, dtype=np.int64)
        self._offset: NDArray[np.int64] = np.array(offsets, dtype=np.int64)
        self._hash: NDArray[np.uint64] = np.array(hashes, dtype=np.uint64)
        self._begin: NDArray[np.int64] = np.array(begins, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def whole(self) -> bool:
        """Whether there are no other records."""
        return all(each.file.size == end for each, end in zip(self.files, self.ends, strict=True))

    def chunks(self, start: int, stop: int) -> "Iterator[Chunk]":
        """The bytes that hold the records `start` to `stop - 1`, a few at a time, with some before and after them.

        Raises:
            UserInputError: a file has changed since it was indexed, or may not be read.
            MachineError: reading fails.
        """
        for file, begin, end in self._parts(start, stop):
            each = self.files[file]
            if each.stored_bytes is not None and stamp(each.file.path)[0] != each.stored_bytes:
                raise changed(each.origin)  # what was added would be left out
            for piece in range(begin // STRIDE, -(-end // STRIDE)):
                first = piece * STRIDE
                wanted = slice(max(begin - first, 0), min(end - first, STRIDE))
                yield Chunk(self.files[file], file, self._piece(file, piece), first, wanted)

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the records `start` to `stop - 1`; within STRIDE records as if all were of the same size."""
        total = 0
        for file, begin, end in self._parts(start, stop):
            marks = self._offset[int(self._begin[file]) : int(self._begin[file + 1])]
            count = int(self.first[file + 1] - self.first[file])
            before, after = (bytes_before(marks, self.ends[file], count, place) for place in (begin, end))
            total += after - before
        return total

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Of each file that holds some of the records: its number, and which of its own records these are."""
        file = int(np.searchsorted(self.first, start, side="right")) - 1
        while start < stop and file < len(self.files):
            first, end = int(self.first[file]), min(stop, int(self.first[file + 1]))
            if start < end:
                yield file, start - first, end - first
            start, file = max(start, end), file + 1

    def _piece(self, file: int, piece: int) -> bytes:
        """The bytes of STRIDE records, or of those that are left at the end of a file."""
        mark = int(self._begin[file]) + piece
        begin, entry = int(self._offset[mark]), self.files[file].file
        last = mark + 1 == int(self._begin[file + 1])
        size = (self.ends[file] if last else int(self._offset[mark + 1])) - begin
        data = replace(entry, offset=entry.offset + begin, size=size).read()
        if xxhash.xxh3_64_intdigest(data) != int(self._hash[mark]):
            raise changed(self.files[file].origin)
        return data


def bytes_before(marks: NDArray[np.int64], size: int, count: int, place: int) -> int:
    """Bytes of a file before a record.

    Args:
        marks: int64, bytes before every STRIDE-th record.
        size: of the file, bytes.
        count: records of the file.
        place: number of the record, or `count`.
    """
    if place == count:
        return size
    mark, within = divmod(place, STRIDE)
    begin, last = int(marks[mark]), mark + 1 == len(marks)
    end, records = (size, count - mark * STRIDE) if last else (int(marks[mark + 1]), STRIDE)
    return begin + (end - begin) * within // records


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of a file.

    Attributes:
        source: the file.
        number: of the file.
        data: bytes of up to STRIDE records.
        first: number within the file of the first of them.
        wanted: which of them are wanted.
    """

    source: RecordFile
    number: int
    data: bytes
    first: int
    wanted: slice


def _extents(begins: Iterator[int], each: RecordFile, most: int | None) -> Iterator[tuple[int, int]]:
    """First byte of each record, and of what follows it."""
    begin = None
    for count, found in enumerate(begins):
        if begin is not None:
            yield begin, found
            if count == most:
                return
        begin = found
    if begin is not None and not each.cut:
        yield begin, each.file.size


def _scanned(window: "Window", each: RecordFile, scan: Scanner) -> Iterator[int]:
    """Where the records of a file begin. What the scanner leaves unread is read here, for the hash."""
    try:
        with io.BufferedReader(window, BUFFER_BYTES) as stream:
            yield from scan(cast("BinaryIO", stream), each)
            while stream.read(BUFFER_BYTES):
                pass
    except DamagedFileError as error:
        if not each.cut:
            raise UserInputError(f"{each.origin}: {error}") from None


class _Pieces:
    """Hashes of the bytes of a file: that of all files goes on, those of its pieces begin anew at every cut.

    Args:
        whole: hash of all files.
    """

    def __init__(self, whole: xxhash.xxh3_128) -> None:
        self._whole = whole
        self._held = bytearray()
        self._begin = 0

    def update(self, data: memoryview) -> None:
        """Take in what was read."""
        self._whole.update(data)
        self._held += data

    def cut(self, offset: int) -> int:
        """Hash of what lies between the last cut and a byte of the file, and is read already."""
        length = offset - self._begin
        found = xxhash.xxh3_64_intdigest(bytes(self._held[:length]))
        del self._held[:length]
        self._begin = offset
        return found


class Window(io.RawIOBase):
    """The bytes of an input as a file of their own, hashed while they are read."""

    def __init__(self, entry: InputFile, digest: _Pieces | None = None) -> None:
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
        """It can be read."""
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
        """Close the file too."""
        if hasattr(self, "_file"):  # not where it could not be opened
            self._file.close()
        super().close()
