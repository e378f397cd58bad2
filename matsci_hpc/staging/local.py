"""Copies of data sets on a disk of the node.

ROOT/matsci-hpc-USER/KEY holds the copy of a data set; the key is the checksum of its manifest, which names the checksum
of every file, so that another data set is another folder. A file takes its name when it is whole. One process of a user
copies on a node at a time, under a lock that the kernel gives back when the process dies; the others then find the
copy. What is found is read once and its checksum compared, so nothing depends on how the process before it ended, and
the page cache is warm.
"""

import errno
import fcntl
import os
import shutil
import socket
import stat
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.shards.manifest import MANIFEST, FileRecord, Manifest
from matsci_hpc.staging.verified import verified_pieces
from matsci_hpc.whole_files import file_checksum, output_error

_LOOK_AGAIN_S = 0.1


def staging_root(folder: Path | None, environ: Mapping[str, str]) -> Path:
    """The folder that the config names, or the scratch disk that the cluster gives this job on its node."""
    if folder is not None:
        return folder
    named = (Path(environ[name]) for name in ("SLURM_TMPDIR", "TMPDIR") if environ.get(name))
    return next((path for path in named if path.is_dir()), Path("/tmp"))  # noqa: S108 - see `_own_folder`


def place_of_copy(root: Path, folder: Path) -> Path:
    """Where the copy of a data set belongs."""
    try:
        return root / f"matsci-hpc-{os.getuid()}" / file_checksum(folder / MANIFEST)
    except OSError as error:
        raise UserInputError(f"{folder / MANIFEST}: cannot be read: {error.strerror or error}") from None


def copy_data_sets(datasets: Sequence[tuple[Path, Manifest]], root: Path) -> Generator[int, None, None]:
    """Make whole copies of data sets under a folder of this node; gives the bytes dealt with, piece by piece.

    Args:
        datasets: folder and manifest of each.
        root: folder on a disk of this node.

    Raises:
        UserInputError: the folder may not be written, or belongs to somebody else.
        MachineError: too little space, or a file of a data set is damaged.
    """
    try:
        own = _own_folder(root)
        with (own / ".lock").open("w") as lock:
            yield from _acquire(lock)
            for leftover in own.glob("*/*.part"):
                leftover.unlink()
            copies = [(folder, manifest, place_of_copy(root, folder)) for folder, manifest in datasets]
            _check_space(own, copies)
            for folder, manifest, target in copies:
                target.mkdir(exist_ok=True)
                for record in (manifest.index, *manifest.shards):
                    yield from _stage_file(folder, target, record)
                (target / MANIFEST).write_bytes((folder / MANIFEST).read_bytes())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError(
                f"{root} on {socket.gethostname()}: full while staging; {_ADVICE}, what is copied is kept"
            ) from None
        raise output_error(Path(error.filename or root), error) from None


_ADVICE = "name a larger disk in data.staging.folder, or stage nothing (data.staging.where=none)"


def check_copy(target: Path, manifest: Manifest) -> None:
    """Whether this process sees the copy that a process of the same node has made.

    Raises:
        MachineError: it does not.
    """
    for record in (manifest.index, *manifest.shards):
        if _size(target / record.file) != record.bytes:
            raise MachineError(
                f"{target / record.file} on {socket.gethostname()}: another rank of this node has staged it, but it is "
                "not here; name a folder that all ranks of a node share in data.staging.folder"
            )


def _own_folder(root: Path) -> Path:
    """A folder of this user alone: /tmp is everybody's, and training on a stranger's files is not wanted."""
    own = root / f"matsci-hpc-{os.getuid()}"
    root.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        own.mkdir(mode=0o700)
    found = own.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise UserInputError(f"{own}: is not a folder of yours; name another one in data.staging.folder")
    return own


def _acquire(lock: IO[str]) -> Iterator[int]:
    """Wait, in small steps, while another job of this user copies on this node."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_AGAIN_S)
            yield 0
        else:
            return


def _check_space(own: Path, copies: list[tuple[Path, Manifest, Path]]) -> None:
    missing = sum(
        record.bytes
        for _, manifest, target in copies
        for record in (manifest.index, *manifest.shards)
        if _size(target / record.file) != record.bytes
    )
    free = shutil.disk_usage(own).free
    if missing > free:
        raise MachineError(
            f"{own.parent} on {socket.gethostname()}: staging needs {missing / 1e9:.3g} GB, {free / 1e9:.3g} GB are "
            f"free; {_ADVICE}"
        )


def _stage_file(folder: Path, target: Path, record: FileRecord) -> Iterator[int]:
    """Make one file of the copy, or find that it is there and whole."""
    copy = target / record.file
    if _size(copy) == record.bytes:
        try:
            for piece in verified_pieces(copy, record):
                yield len(piece)
        except MachineError:
            copy.unlink()  # and made again below
        else:
            return
    part = copy.with_name(f"{copy.name}.part")
    try:
        with part.open("wb", buffering=0) as file:
            for piece in verified_pieces(folder / record.file, record):
                left = piece
                while left:
                    left = left[file.write(left) :]
                yield len(piece)
        part.replace(copy)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
