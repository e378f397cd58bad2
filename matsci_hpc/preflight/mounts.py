"""Which file system a path is on, and whether other nodes see it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Reach = Literal["shared", "node", "unknown"]
"""Seen by all nodes; by this one alone; a plain disk, which other nodes see only if this machine exports it."""

SHARED_TYPES = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "cifs", "smb3", "panfs", "pvfs2", "orangefs"),
    *("wekafs", "glusterfs", "afs", "dvs", "9p", "virtiofs", "vastfs", "gfs2", "ocfs2", "daos"),
}
MEMORY_TYPES = {"tmpfs", "ramfs", "devtmpfs", "proc", "sysfs"}
NODE_FOLDERS = tuple(Path(each) for each in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/local", "/localscratch"))  # noqa: S108
"""Folders that every node has its own of, on nearly every cluster."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: where, of which type, and the device or server that it comes from."""

    point: Path
    type: str
    source: str = ""


def nearest(path: Path) -> Path:
    """The path itself with its links followed, or the nearest folder above it that is there."""
    found = Path(os.path.realpath(path))
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def read_mounts(table: str) -> list[Mount]:
    """The file systems in a table of the form of /proc/mounts; later ones lie over earlier ones."""
    mounts = []
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 3:
            # A space in a path stands as \040.
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
            mounts.append(Mount(Path(point), fields[2], fields[0]))
    return mounts


def mounts_here() -> list[Mount]:
    """The file systems of this machine; none where the kernel does not tell."""
    try:
        return read_mounts(Path("/proc/mounts").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The file system that a path, all of which exists, is on."""
    above = {path, *path.parents}
    holding = [(len(each.point.parts), number, each) for number, each in enumerate(mounts) if each.point in above]
    return max(holding, key=lambda each: each[:2])[2] if holding else None


def reach(path: Path, mounts: list[Mount], node_local: Path | None = None) -> tuple[Reach, str]:
    """Who sees a path, and why one may think so.

    Args:
        path: with its links followed.
        mounts: of this machine.
        node_local: folder that the site file calls local to a node, if it is known here.
    """
    mount = mount_of(path, mounts)
    own = [*NODE_FOLDERS, *([node_local] if node_local else [])]
    type_ = mount.type if mount else "unknown type"
    if mount and (mount.type in SHARED_TYPES or mount.type.startswith("fuse")):
        # A shared file system may well be mounted at /local.
        return ("shared", f"{mount.type} at {mount.point}")
    for each in own:
        if path == each or each in path.parents:
            return ("node", f"{each} is another folder on each node")
    if type_ in MEMORY_TYPES:
        return ("node", f"{type_} at {mount.point if mount else '/'}, in the memory of this machine")
    return ("unknown", f"{type_} at {mount.point if mount else '/'}, a disk of this machine")


def expanded(path: str | None) -> Path | None:
    """A path of a site file with its variables filled in; None if it has some that are unknown here."""
    if path is None:
        return None
    text = os.path.expandvars(path)
    return Path(text) if "$" not in text and "%" not in text and text.startswith("/") else None
