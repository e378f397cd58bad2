"""Sizes and times as people read them."""


def bytes_in_words(count: float) -> str:
    """`3.2 GB`, in powers of 1000 as disks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def time_in_words(time_s: float) -> str:
    """`12 s`, `3.5 min`, `40 h` or `6.1 days`."""
    for unit, size in (("days", 86400 * 3), ("h", 3600), ("min", 60)):
        if time_s >= size:
            return f"{time_s / (86400 if unit == 'days' else size):.3g} {unit}"
    return f"{time_s:.2g} s"


def counted(count: int, singular: str) -> str:
    """`1 rank`, `1,024 ranks`."""
    return f"{count:,} {singular}{'' if count == 1 else 's'}"
