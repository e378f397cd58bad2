"""Freed memory stays with the process: the malloc variables of a rank, for runs that no launcher of ours started."""

import ctypes
import os
import platform

# Numbers of glibc's malloc.h, by the variables that say the same.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_OPTIONS = {
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, -1),  # the argument is an int; -1 stands for the largest size
    "MALLOC_TOP_PAD_": (_TOP_PAD, 64 << 20),
    "MALLOC_MMAP_MAX_": (_MMAP_MAX, 0),
}


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, as far as the environment does not say otherwise.

    Returns:
        Whether it does; another C library has no such options.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wanted = [option for name, option in _OPTIONS.items() if name not in os.environ]
    answers = [libc.mallopt(number, value) for number, value in wanted]
    return all(answer == 1 for answer in answers)
