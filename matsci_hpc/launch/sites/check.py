"""`matsci-hpc site check`: what of a site file does not fit the machine, seen from its login node."""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.launcher import launcher_here, missing_here
from matsci_hpc.launch.sites.check_slurm import check_slurm
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.sites.program import ask
from matsci_hpc.launch.sites.rehearse import Rehearsal, launcher_program, rehearse
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.show import show

_COMMANDS = {
    "local": (),
    "slurm": ("sbatch", "squeue", "scancel", "scontrol", "sinfo"),
    "pbs": ("qsub", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill"),
    "flux": ("flux",),
}
_QUEUE_QUERY = {"pbs": ["qstat", "-Q"], "lsf": ["bqueues"]}
"""Commands that fail for a queue that they do not know."""


def check_site(name_or_path: str) -> None:
    """Print what fits and what does not.

    Raises:
        UserInputError: The file is no site, or jobs by it would fail.
    """
    site = load_site(name_or_path)
    if any(each.level == "error" for each in show(findings(site))):
        raise UserInputError(f"{name_or_path}: jobs of this site would fail; see the errors above")


def findings(site: Site) -> Iterator[Finding]:
    """All that can be looked at from here, the quick things first."""
    yield from _numbers(site)
    missing = [each for each in _COMMANDS[site.scheduler] if shutil.which(each) is None]
    if missing:
        yield Finding(
            "error",
            "scheduler",
            f"{', '.join(missing)} not on PATH",
            f"run this on a login node of a cluster with {site.scheduler}",
        )
    elif site.scheduler == "slurm":
        yield from check_slurm(site)
    elif site.scheduler != "local":
        yield from _queue(site)
    yield from _surroundings(site, rehearse(site))
    yield from _files(site)


def _numbers(site: Site) -> Iterator[Finding]:
    """What the file itself says of its nodes."""
    if site.account_required and site.account is None:
        yield Finding("error", "account", "every job is charged to an account here", "set `account`")
    if site.scheduler == "local":
        return
    cores = site.ranks_per_node * site.cpus_per_rank
    if site.cores_per_node and cores > site.cores_per_node:
        yield Finding(
            "error",
            "cores",
            f"{site.ranks_per_node} ranks of {site.cpus_per_rank} cores need {cores}, and cores_per_node is "
            f"{site.cores_per_node}",
            "lower ranks_per_node or cpus_per_rank",
        )
    elif site.cores_per_node and cores < site.cores_per_node:
        yield Finding("note", "cores", f"{site.cores_per_node - cores} of {site.cores_per_node} cores stay idle")
    gpus = site.ranks_per_node * site.gpus_per_rank
    if site.gpus_per_node is not None and gpus > site.gpus_per_node:
        yield Finding("error", "GPUs", f"ranks want {gpus} of a node, and gpus_per_node is {site.gpus_per_node}")


def _queue(site: Site) -> Iterator[Finding]:
    """Schedulers other than Slurm: whether they answer, and know the queue."""
    query = _QUEUE_QUERY.get(site.scheduler)
    if query is None:
        yield Finding("ok", "scheduler", f"{_COMMANDS[site.scheduler][0]} is on PATH")
        return
    words = [*query, *([site.partition] if site.partition else [])]
    reply = ask(words)
    if reply.good:
        yield Finding("ok", "queue", site.partition or "left to the scheduler")
    else:
        yield Finding("error", "queue", f"{' '.join(words)}: {reply.complaint}", "set `partition` to a queue of yours")


def _surroundings(site: Site, seen: Rehearsal) -> Iterator[Finding]:
    """Setup lines, and what they leave behind."""
    if seen.failed_line is not None:
        where = f"in `{seen.failed_line}`: " if seen.failed_line else ""
        yield Finding("error", "setup", f"{where}{seen.complaint}", "a job would end here; mend the line in `setup`")
        return
    if site.setup:
        yield Finding("ok", "setup", f"lines run without failure: {len(site.setup)}")
    program = launcher_program(site)
    launcher = launcher_here(program) if site.scheduler == "local" else seen.launcher
    if launcher:
        yield Finding("ok", "launcher", f"{program} is {launcher}")
    elif site.scheduler == "local":
        yield Finding("error", "launcher", *missing_here(program))
    elif site.scheduler == "slurm":
        yield Finding("error", "launcher", f"{program} is not on PATH after setup", "load its module in `setup`")
    else:
        yield Finding("warning", "launcher", f"{program} is not on PATH here after setup; it may be on the nodes")
    if seen.container is not None:
        started = site.container.command[0] if site.container else ""
        if seen.container:
            yield Finding("ok", "container", f"{started} is on PATH")
        else:
            yield Finding("warning", "container", f"{started} is not on PATH here; it may be on the nodes")
    elif seen.python:
        yield Finding(
            "error", "python", f"matsci-hpc cannot be imported after setup: {seen.python}", "a module may hide it"
        )
    else:
        yield Finding("ok", "python", "matsci-hpc can be imported after setup")
    for name, (path, known) in seen.folders.items():
        yield _folder(name, path, known)


def _folder(name: str, path: str, known: bool) -> Finding:
    topic = name.replace("_", " ")
    if not known:
        return Finding(
            "warning" if name == "scratch" else "note", topic, f"a variable is not set here: it expands to {path!r}"
        )
    if name == "node_local":
        return Finding("note", topic, f"{path} on each node; not looked at from here")
    if not Path(path).is_dir():
        return Finding("error", topic, f"{path} is not a folder")
    if not os.access(path, os.W_OK):
        return Finding("warning", topic, f"{path} may not be written", "name your own folder below it")
    return Finding("ok", topic, path)


def _files(site: Site) -> Iterator[Finding]:
    archive = site.environment_archive
    if archive is not None:
        yield _archive(archive)
    if site.container is not None and "/" in site.container.image and "://" not in site.container.image:
        if Path(site.container.image).exists():
            yield Finding("ok", "container", f"{site.container.image} is there")
        else:
            yield Finding("error", "container", f"{site.container.image} is not there")


def _archive(archive: Path) -> Finding:
    topic, advice = "environment", "make it by `matsci-hpc site pack`"
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.name in {"bin/python", "./bin/python"}:
                    return Finding("ok", topic, f"{archive} holds bin/python")
    except (OSError, tarfile.TarError) as error:
        return Finding("error", topic, f"{archive}: {getattr(error, 'strerror', None) or error}", advice)
    return Finding("error", topic, f"{archive} holds no bin/python", advice)
