"""One folder, one job: two would write over each other's files."""

import errno
import fcntl
import os
import socket
from pathlib import Path

from matsci_hpc.errors import UserInputError

LOCK = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class FolderLock:
    """A lock on a folder, held by rank 0 until it is released or the process ends, however it ends.

    The kernel keeps it, so a file that a killed job has left hinders nobody. Where the file system has no locks (some
    mounts of Lustre) there is none, and two jobs are the user's to avoid.

    Args:
        folder: in which the file of the lock lies.
        refusal: what to tell whoever comes second; `{holder}` stands for who holds it.
    """

    def __init__(self, folder: Path, refusal: str) -> None:
        self._path = folder / LOCK
        self._refusal = refusal
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UserInputError: another process holds it.
            OSError: its file cannot be made.
        """
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                if error.errno in _UNSUPPORTED:
                    return
                raise UserInputError(self._refusal.replace("{holder}", holder)) from None
            if self._is_ours(descriptor):
                break
            os.close(descriptor)  # who held it has removed the file meanwhile
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_ours(self, descriptor: int) -> bool:
        try:
            found, own = self._path.stat(), os.fstat(descriptor)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)
