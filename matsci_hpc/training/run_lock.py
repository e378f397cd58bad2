"""One run, one job: two would write over each other's checkpoints and mix their records."""

import errno
import fcntl
import os
import socket
from pathlib import Path

from matsci_hpc.errors import UserInputError

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class RunLock:
    """A lock on a run's folder, held by rank 0 until it is released or the process ends, however it ends.

    Where the file system has no locks (some mounts of Lustre) there is none, and two jobs are the user's to avoid.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UserInputError: another process holds it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if error.errno in _UNSUPPORTED:
                return
            raise UserInputError(
                f"{self._path.parent}: {holder} is training here; stop it (touch {self._path.parent / 'STOP'}) "
                "or choose another run_dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
