"""What is left of a quota, as `quota` and Lustre's `lfs quota` tell it."""

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from matsci_hpc.preflight.mounts import Mount

_TIMEOUT_S = 20
_NUMBER = re.compile(r"[0-9]+\*?")


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account may still store.

    Attributes:
        where: the file system, as the program calls it.
        bytes_left, files_left: until the hard limit; None without one.
    """

    where: str
    bytes_left: int | None
    files_left: int | None


def quotas_here(mount: Mount | None) -> Iterator[Quota]:
    """Quotas of this account, from whatever program there is.

    Args:
        mount: file system that is asked about.
    """
    if mount is not None and mount.type == "lustre" and shutil.which("lfs"):
        yield from parse_quota(_ask(["lfs", "quota", "-q", "-u", getpass.getuser(), str(mount.point)]))
    elif shutil.which("quota"):
        found = parse_quota(_ask(["quota", "-w", "-p"]))
        yield from (each for each in found if mount is not None and each.where == mount.source)


def parse_quota(answer: str) -> Iterator[Quota]:
    """The lines `WHERE BLOCKS SOFT HARD [GRACE] FILES SOFT HARD [GRACE]` of an answer; blocks are of 1024 bytes.

    A limit of 0 is none. A `*` behind a number marks that its soft limit is passed. Where nothing is overdrawn the
    grace may be left out or be `-`; with `quota -p` it is a number.
    """
    for line in answer.splitlines():
        where, *fields = line.split() or [""]
        numbers = [int(field.rstrip("*")) for field in fields if _NUMBER.fullmatch(field)]
        if not where.startswith("/") and ":" not in where:
            continue
        if len(fields) == 8 and len(numbers) == 8:  # both graces are numbers
            numbers = numbers[:3] + numbers[4:7]
        if len(numbers) == 6:
            used, _, hard, files, _, most = numbers
            yield Quota(where, 1024 * max(0, hard - used) if hard else None, max(0, most - files) if most else None)


def _ask(command: list[str]) -> str:
    # A program that has nothing to tell says so by its exit code.
    answer = subprocess.run(  # noqa: S603 - fixed words, the own account and a mount point
        command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    return answer.stdout
