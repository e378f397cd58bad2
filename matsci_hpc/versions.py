"""Versions of installed packages, by their metadata alone: some pairs of packages end the interpreter at import."""

from importlib.metadata import PackageNotFoundError, version


def installed(name: str) -> str | None:
    """Version of a package; None if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def series(text: str) -> tuple[int, ...]:
    """The first two numbers of a version: (2, 8) of 2.8.0+cpu."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.partition("+")[0].split(".")[:2])


def same_series(found: str, torch: str | None) -> str | None:
    """Why a package of Intel's does not go with a torch: each is built for one series of it. None if it does."""
    if torch is not None and series(found) == series(torch):
        return None
    needed = ".".join(map(str, series(found)))
    return f"it needs torch {needed}, and this is {torch}"
