"""Files that appear whole or not at all, and the checksums by which damage is noticed later."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash

from matsci_hpc.errors import MachineError, UserInputError

_NOT_A_PLACE_TO_WRITE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        *(errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP),
    }
)

_PIECE_BYTES = 1 << 24


def checksum(data: bytes) -> str:
    """XXH3 of 128 bits, in hexadecimal: guards against damage, at memory speed; not against forgery."""
    return xxhash.xxh3_128_hexdigest(data)


def file_checksum(path: Path, progress: Callable[[], None] = lambda: None) -> str:
    """The checksum of a file, read in pieces; `progress` is called after each."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
            progress()
    return digest.hexdigest()


def write_synced(path: Path, data: bytes, progress: Callable[[], None]) -> str:
    """Write a new file in pieces, make sure that it is on disk, and give the checksum of what was to be written.

    Args:
        path: of the file.
        data: its content.
        progress: called after every piece, so that a slow disk can be told from one that hangs.

    Raises:
        OSError: it cannot be written, or not all of it.
    """
    with path.open("wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left[:_PIECE_BYTES]) :]
            progress()
        os.fsync(file.fileno())
    progress()
    return checksum(data)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all, even when power fails.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise output_error(path, error) from None
        raise


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes its name when the block ends; like `write_atomic`, for large files.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise output_error(path, error) from None
        raise


def output_error(path: Path, error: OSError) -> UserInputError | MachineError:
    """What to tell the user when writing failed."""
    if error.errno in _NOT_A_PLACE_TO_WRITE:
        return UserInputError(f"{path}: cannot be written: {error.strerror}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return MachineError(f"{path}: {error.strerror}; free some space and start again, what is finished is kept")
    return MachineError(f"{path}: writing failed: {error.strerror or error}")


def sync(path: Path) -> None:
    """Make sure that a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
