"""The file system of a data set or run: its type, who sees it, locks, stripes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.doctor.child import ChildError, run_child
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.locking import flock_findings
from matsci_hpc.preflight.mounts import mount_of, mounts_here, nearest, reach
from matsci_hpc.preflight.words import bytes_in_words

SEEN = {"shared": "all nodes see it", "node": "other nodes do not see it", "unknown": "nothing says that others see it"}


def file_findings(path: Path) -> Iterator[Finding]:
    """Look at a data set or a run directory, which is there."""
    found = nearest(path)
    mounts = mounts_here()
    who, why = reach(found, mounts)
    free = bytes_in_words(shutil.disk_usage(found).free)
    yield Finding("ok", "file system", f"{why}: {SEEN[who]}; {free} free")
    mount = mount_of(found, mounts)
    if mount and mount.type == "lustre":
        yield _stripes(found)
    if found.is_dir():
        try:
            yield from flock_findings(found)
        except OSError as error:
            yield Finding("note", "locking", f"{found}: not tried: {error.strerror or error}")


def _stripes(path: Path) -> Finding:
    try:
        count = run_child(["lfs", "getstripe", "-d", "-c", str(path)], 30).strip()
    except ChildError as error:
        return Finding("note", "stripes", f"lfs getstripe {error}")
    if count in {"0", "1"}:
        return Finding("ok", "stripes", "new files lie on one server each, which suits many shards")
    advice = f"`lfs setstripe -c 1 {path}` before the shards are written"
    return Finding("note", "stripes", f"new files are spread over {count} servers", advice)
