"""Environment variables that every rank gets, whoever starts it: each with what a rank pays without it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BINDING = frozenset({"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"})
"""Any of them says where threads belong."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable of a rank.

    Attributes:
        name, value: as in the environment.
        without: what a rank pays without it, for `matsci-hpc doctor`.
    """

    name: str
    value: str
    without: str


SETTINGS = (
    # glibc maps large blocks anew each time and gives them back at once: every operation on a large tensor then pays
    # for zeroed pages (benchmarks/allocator.py). MALLOC_MMAP_THRESHOLD_ cannot prevent that: until 2.35, which is to
    # say on RHEL 8 and 9, glibc refuses more than 32 MiB for it, and stays at 128 KiB if another of these is set.
    Setting("MALLOC_MMAP_MAX_", "0", "every operation on a large tensor waits for new memory pages"),
    Setting("MALLOC_TRIM_THRESHOLD_", "17179869184", "freed memory goes back to the kernel, and is fetched anew"),
    Setting("MALLOC_TOP_PAD_", "67108864", "memory is fetched from the kernel in small pieces"),
    # Many parallel file systems have no locks; shards have one writer each and never change.
    Setting("HDF5_USE_FILE_LOCKING", "FALSE", "shards cannot be opened on a file system without locks"),
    # Lines of a log must not wait in a buffer that a killed rank takes along.
    Setting("PYTHONUNBUFFERED", "1", "a killed rank takes its last lines along"),
    # A bound OpenMP binds the main thread to one core, and with it every thread that it starts later: those of the
    # loader, of gloo, of checkpoints. Where ranks are bound by the launcher, that is tight enough.
    Setting("OMP_PROC_BIND", "false", "a value of your shell may tie loader, network and compute to a single core"),
    # Intel's OpenMP spins for 200 ms after each parallel region, on the cores that those threads need.
    Setting("KMP_BLOCKTIME", "1", "idle threads of Intel's OpenMP keep cores busy"),
)


def rank_environment(threads: int | None = None, chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Name to value of what a rank is given.

    Args:
        threads: of a rank; None where ranks of a job differ in it.
        chosen: variables that somebody who knows better has set: the site, or on this machine the user's shell. They
            are left out here, and those that would contradict them.
    """
    own = {each.name: each.value for each in SETTINGS}
    if threads is not None:
        own |= thread_environment(threads, chosen)
    chosen = chosen or {}
    if _BINDING & chosen.keys():
        del own["OMP_PROC_BIND"]
    return {name: value for name, value in own.items() if name not in chosen}


def thread_environment(threads: int, chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Threads of a rank: for torch and numpy, and for MKL, whose own variable wins over OpenMP's in torch, too."""
    chosen = chosen or {}
    names = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": chosen.get("OMP_NUM_THREADS", str(threads))}
    return {name: value for name, value in names.items() if name not in chosen}


def is_variable_name(name: str) -> bool:
    """Whether a shell can export a variable of this name."""
    return _NAME.fullmatch(name) is not None
