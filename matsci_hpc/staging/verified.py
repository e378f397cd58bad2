"""Reading files from end to end at the speed of a parallel file system, with their checksums compared on the way."""

import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from matsci_hpc.errors import MachineError
from matsci_hpc.shards.manifest import FileRecord

PIECE_BYTES = 1 << 23
"""Bytes of a read: parallel file systems are slow at small ones."""


def verified_pieces(path: Path, record: FileRecord, into: memoryview | None = None) -> Iterator[memoryview]:
    """The content of a file, piece by piece. Whether it is right is known after the last one.

    Args:
        path: the file.
        record: its size and checksum.
        into: memory for the whole file; without it each piece takes the place of the one before.

    Raises:
        MachineError: it is missing, cannot be read, or is not what the record says.
    """
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(min(PIECE_BYTES, record.bytes))) if into is None else into
    done = 0
    try:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while done < record.bytes:
                start = 0 if into is None else done
                piece = buffer[start : start + min(PIECE_BYTES, record.bytes - done)]
                size = file.readinto(piece)
                if not size:
                    break
                digest.update(piece[:size])
                done += size
                yield piece[:size]
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror or error}") from None
    if size != record.bytes or done != record.bytes:
        raise MachineError(
            f"{path}: {size} bytes, {record.bytes} expected; `matsci-hpc shards verify {path.parent}` tells more"
        )
    if digest.hexdigest() != record.xxh3_128:
        raise MachineError(
            f"{path}: the checksum differs: damaged, or a file of another data set; prepare the data again, or restore "
            "this file"
        )
