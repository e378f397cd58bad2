"""Environment variables that every rank gets, whoever starts it."""

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

RANK_ENVIRONMENT = {
    # glibc gives blocks above 32 MiB back to the kernel at once, and every operation on a large tensor then
    # pays for new zeroed pages. Keeping them in the arena halved the time of a training step.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
    # Many parallel file systems have no locks; shards have one writer each and never change.
    "HDF5_USE_FILE_LOCKING": "FALSE",
    # Lines of a log must not wait in a buffer that a killed rank takes along.
    "PYTHONUNBUFFERED": "1",
}
"""Name to value; a site's `environment` wins over these, and on this machine the user's own shell."""


def is_variable_name(name: str) -> bool:
    """Whether a shell can export a variable of this name."""
    return _NAME.fullmatch(name) is not None
