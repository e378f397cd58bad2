"""Locks: training takes one on its run directory, and HDF5 must take none."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from matsci_hpc.launch.environment import rank_environment
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.mounts import nearest

HDF5_VARIABLE = "HDF5_USE_FILE_LOCKING"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def flock_findings(run_dir: Path) -> Iterator[Finding]:
    """Whether a second job in the same run directory would be noticed; tried on a file that is removed again.

    Raises:
        OSError: nothing can be written there.
    """
    folder = nearest(run_dir)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".matsci-check-") as file:
        second = os.open(file.name, os.O_RDWR)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield Finding("ok", "locking", f"{folder}: locks work, so two jobs in one run_dir are noticed")
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            yield _unguarded(folder, f"no locks ({error.strerror})")
        else:
            yield _unguarded(folder, "two processes got the same lock")
        finally:
            os.close(second)


def hdf5_findings(site: Site, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether ranks would let HDF5 lock the shards, which file systems without locks refuse.

    Args:
        site: the machine.
        environ: of this process.
    """
    value = rank_environment()[HDF5_VARIABLE]
    if site.scheduler == "local":  # the user's own shell wins there
        value = environ.get(HDF5_VARIABLE, value)
    value = site.environment.get(HDF5_VARIABLE, value)
    if value.upper() in {"FALSE", "0", "BEST_EFFORT"}:
        yield Finding("ok", "locking", f"{HDF5_VARIABLE}={value} for every rank")
    else:
        text = f"{HDF5_VARIABLE}={value}: opening shards fails on a file system without locks"
        yield Finding("warning", "locking", text, "leave it out of the site's environment and of your shell")


def _unguarded(folder: Path, why: str) -> Finding:
    text = f"{folder}: {why}: two jobs in one run_dir would not notice each other"
    return Finding("warning", "locking", text, "start one at a time")
