"""How much memory this node has left for shared data."""

import shutil
from pathlib import Path

_UNLIMITED = 1 << 60
"""Control groups of version 1 write a number beyond this where there is no limit."""


def available_bytes(root: Path = Path("/")) -> tuple[int, str]:
    """Bytes of memory that this process and its node can still take, and what limits them.

    The least of what the kernel calls available, of what the limits of this process' control groups (those of a batch
    job, above all) leave, and of the free space of /dev/shm, in which MPI libraries keep shared memory.

    Args:
        root: of the file system.
    """
    found = [(_meminfo(root / "proc/meminfo"), "memory of the node"), *_groups(root)]
    shared = root / "dev/shm"
    if shared.is_dir():
        found.append((shutil.disk_usage(shared).free, f"free space of {shared}"))
    return min(found)


def _meminfo(path: Path) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return _UNLIMITED


def _groups(root: Path) -> list[tuple[int, str]]:
    """What the limits of the control groups that this process is in, of both versions, leave."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            mount, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        else:
            continue
        group = mount / path.lstrip("/")
        # Each group up to the mount limits; inside a container the path may not exist, but the mount does.
        groups = (each for each in (group, *group.parents) if each.is_relative_to(mount))
        found += [(_left(each, *names), f"memory limit of {each}") for each in groups]
    return found


def _left(folder: Path, limit_name: str, usage_name: str) -> int:
    """Limit less usage, where the files of the page cache do not count: they make room."""
    try:
        limit = (folder / limit_name).read_text().strip()
        if limit == "max" or int(limit) > _UNLIMITED:
            return _UNLIMITED
        usage = int((folder / usage_name).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return _UNLIMITED
    # Version 1 counts a group's children only under the names with total_.
    cache = sum(
        int(statistics.get(f"total_{name}", statistics.get(name, 0))) for name in ("active_file", "inactive_file")
    )
    return max(0, int(limit) - max(0, usage - cache))
