"""Whether everything that a job reads and writes is there, may be written, and is seen by the nodes."""

import os
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.sources import input_paths
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.mounts import Mount, expanded, nearest, reach
from matsci_hpc.preflight.subject import Subject


def existence_findings(subject: Subject) -> Iterator[Finding]:
    """What is missing, or may not be read or written."""
    site, config = subject.site, subject.config
    if config is not None:
        yield from writable(subject.output)
    if isinstance(config, PrepConfig):
        for _, path in input_paths(config.source):
            if not subject.is_awaited(path):
                yield from readable("input", path)
    if isinstance(config, TrainConfig) and config.init_from is not None and not subject.is_awaited(config.init_from):
        yield from readable("init_from", config.init_from)
    if site.container is not None:
        yield from readable("container", Path(site.container.image))
    elif site.environment_archive is not None:
        yield from readable("environment", site.environment_archive)


def reach_findings(subject: Subject, mounts: list[Mount]) -> Iterator[Finding]:
    """What the nodes of the job may not see. On this machine alone there are no others."""
    if subject.site.scheduler == "local":
        return
    node_local = expanded(subject.site.node_local)
    unseen: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    for name, path in shared_paths(subject):
        there = nearest(path)
        kind, why = reach(there, mounts, node_local)
        if kind == "node":
            unseen.setdefault(why, []).append(f"{name} {path}")
        elif kind == "unknown":
            doubtful.setdefault(why, []).append(f"{name} {path}")
        else:
            yield Finding("ok", "paths", f"{name} {path}: on {why}")
    scratch = expanded(subject.site.scratch)
    for why, names in unseen.items():
        advice = "use the shared file system of the cluster" + (f", such as {scratch}" if scratch else "")
        yield Finding("warning", "paths", f"{', '.join(names)}: compute nodes do not see it: {why}", advice)
    for why, names in doubtful.items():
        text = f"{', '.join(names)}: on {why}; whether compute nodes see it cannot be known from here"
        yield Finding("note", "paths", text)


def shared_paths(subject: Subject) -> Iterator[tuple[str, Path]]:
    """What all nodes must see under the same path, with a name for each."""
    job, site, config = subject.job, subject.site, subject.config
    yield "run_dir" if job.verb != "prep" else "out", subject.output
    if job.verb != "report":
        yield "config", job.config
    yield "working folder", job.work_dir
    if isinstance(config, TrainConfig):
        yield from (("data", folder) for folder in config.data.folders)
        if config.init_from is not None:
            yield "init_from", config.init_from
    elif isinstance(config, PrepConfig):
        yield from input_paths(config.source)
    if site.container is not None:
        yield "container", Path(site.container.image)
    elif site.environment_archive is not None:
        yield "environment", site.environment_archive
    else:
        yield "python", job.python


def readable(name: str, path: Path) -> Iterator[Finding]:
    """An error if a file or folder is not there or closed to us."""
    if not path.exists():
        yield Finding("error", "paths", f"{name} {path}: is not there")
    elif not os.access(path, os.R_OK):
        yield Finding("error", "paths", f"{name} {path}: may not be read by you")


def writable(folder: Path) -> Iterator[Finding]:
    """Whether a folder can be written, or made."""
    there = nearest(folder)
    if not there.is_dir():
        yield Finding("error", "paths", f"{folder}: cannot be made, {there} is a file")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Finding("error", "paths", f"{folder}: {there} may not be written by you")
    elif os.statvfs(there).f_flag & os.ST_RDONLY:
        yield Finding("error", "paths", f"{folder}: the file system of {there} is mounted read-only here")
    else:
        yield Finding("ok", "paths", f"{folder}: can be written")
