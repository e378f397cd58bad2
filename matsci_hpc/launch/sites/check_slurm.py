"""A site file against what Slurm says of itself."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.describe import divide
from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.script import render
from matsci_hpc.launch.sites.model import Site, limit_in_seconds, limit_text, memory_in_bytes
from matsci_hpc.launch.sites.program import ask
from matsci_hpc.launch.sites.slurm_facts import Nodes, Partition, associations, mpi_plugins, partitions
from matsci_hpc.preflight.finding import Finding


def check_slurm(site: Site) -> Iterator[Finding]:
    """Partitions, accounts, sizes, MPI, and a submission that submits nothing."""
    known = partitions()
    if isinstance(known, str):
        yield Finding("error", "scheduler", f"sinfo does not answer: {known}", "run this on a login node")
        return
    yield Finding("ok", "scheduler", f"Slurm answers, with {len(known)} partitions")
    for component in _components(site):
        yield from _check_component(component, site, known)
    yield from _check_account(site)
    yield from _check_mpi(site)
    yield _try(site)


def _components(site: Site) -> list[Component]:
    """A node of each kind."""
    wanted = [JobRequest(nodes=1), *(JobRequest(nodes={kind: 1}) for kind in site.node_kinds)]
    return [divide(each, site)[0] for each in wanted]


def _check_component(component: Component, site: Site, known: Sequence[Partition]) -> Iterator[Finding]:
    topic = component.kind or "partition"
    found = _partition(component, known)
    if found is None:
        names = ", ".join(each.name for each in known)
        if component.partition is None:
            yield Finding("error", topic, "none is named, and the cluster has no default", f"choose one of {names}")
        else:
            yield Finding("error", topic, f"no partition {component.partition}", f"choose one of {names}")
        return
    limit = "no time limit" if found.max_time_s is None else f"at most {limit_text(found.max_time_s)}"
    default = ", the default" if component.partition is None else ""
    yield Finding("ok", topic, f"{found.name}{default}: nodes {sum(each.number for each in found.nodes)}, {limit}")
    yield from _check_time(site, found)
    yield from _check_size(component, site, found)


def _partition(component: Component, known: Sequence[Partition]) -> Partition | None:
    if component.partition is None:
        return next((each for each in known if each.default), None)
    # `--partition=a,b` takes whichever is free first; the first must fit like any.
    name = component.partition.split(",")[0]
    return next((each for each in known if each.name == name), None)


def _check_time(site: Site, found: Partition) -> Iterator[Finding]:
    if found.max_time_s is None:
        return
    if site.time_limit and limit_in_seconds(site.time_limit) > found.max_time_s:
        yield Finding(
            "error",
            "time limit",
            f"time_limit {site.time_limit} is more than {found.name} grants, {limit_text(found.max_time_s)}",
            "lower it; training goes on in the next life of the job",
        )
    if site.max_time_limit and limit_in_seconds(site.max_time_limit) > found.max_time_s:
        yield Finding(
            "warning",
            "time limit",
            f"max_time_limit {site.max_time_limit} is more than {found.name} grants, {limit_text(found.max_time_s)}",
        )


def _check_size(component: Component, site: Site, found: Partition) -> Iterator[Finding]:
    cpus = component.ranks_per_node * component.counted_cpus_per_rank
    gpus = component.ranks_per_node * component.gpus_per_rank
    memory_mb = memory_in_bytes(component.memory) >> 20 if component.memory else 0
    wanted = {"CPUs": cpus, "GPUs": gpus, "MB of memory": memory_mb}
    have = [{"CPUs": each.cpus, "GPUs": each.gpus, "MB of memory": each.memory_mb} for each in found.nodes]
    most = {what: max((its[what] for its in have), default=0) for what in wanted}
    too_much = [what for what in wanted if wanted[what] > most[what]]
    for what in too_much:
        advice = "lower `memory`" if what == "MB of memory" else "lower ranks_per_node or what a rank gets"
        text = f"a node needs {wanted[what]:,} {what}; {found.name} has {most[what]:,}"
        yield Finding("error", "node size", text, advice)
    fit = [all(its[what] >= wanted[what] for what in wanted) for its in have]
    fitting = sum(each.number for each, fits in zip(found.nodes, fit, strict=True) if fits)
    total = sum(each.number for each in found.nodes)
    words = ", ".join(f"{number:,} {what}" for what, number in wanted.items() if number)
    if fitting == total:
        yield Finding("ok", "node size", f"{words}: every node of {found.name} has that")
    elif fitting:
        yield Finding("warning", "node size", f"nodes of {found.name} that have {words}: {fitting} of {total}")
    elif not too_much:
        yield Finding("error", "node size", f"no node of {found.name} has all of {words}")
    yield from _check_threads(site, found.nodes)


def _check_threads(site: Site, nodes: Sequence[Nodes]) -> Iterator[Finding]:
    counted = max((each.cpus_per_core for each in nodes), default=1)
    told = " ".join([*site.options, *site.binding, site.launcher or ""])
    if counted > site.cpus_per_core and not re.search(r"--threads-per-core|nomultithread", told):
        yield Finding(
            "warning",
            "threads",
            f"Slurm counts {counted} hardware threads for each core, and this file counts cores as CPUs",
            f"set cpus_per_core: {counted}, or --threads-per-core=1 in `options` and `binding`",
        )


def _check_account(site: Site) -> Iterator[Finding]:
    if site.account is None and site.qos is None:
        return
    known = associations()
    if isinstance(known, str):
        yield Finding("note", "account", f"cannot be looked up: {known}")
        return
    if site.account is not None:
        if site.account in known:
            yield Finding("ok", "account", site.account)
        else:
            yield Finding("error", "account", f"not yours: {site.account}", f"choose one of {', '.join(sorted(known))}")
    granted = known.get(site.account, set()) if site.account else set[str]().union(*known.values())
    if site.qos is not None and granted:
        if site.qos in granted:
            yield Finding("ok", "qos", site.qos)
        else:
            yield Finding("error", "qos", f"not granted: {site.qos}", f"choose one of {', '.join(sorted(granted))}")


def _check_mpi(site: Site) -> Iterator[Finding]:
    words = shlex.split(site.launcher or "srun") + site.binding
    named = next((each.partition("=")[2] for each in words if each.startswith("--mpi=")), None)
    if named is None:
        return
    known = mpi_plugins()
    if isinstance(known, str):
        yield Finding("note", "mpi", f"srun does not say what it knows: {known}")
    elif named in known:
        yield Finding("ok", "mpi", f"srun knows --mpi={named}")
    else:
        yield Finding("error", "mpi", f"srun does not know --mpi={named}", f"choose one of {', '.join(sorted(known))}")


def _try(site: Site) -> Finding:
    """Let Slurm judge a job of one node, by the very script that `submit` would write."""
    scheduler = SCHEDULERS["slurm"]
    here = Path.cwd()
    job = Job(
        name="site-check",
        verb="train",
        config=here / "config.yaml",
        work_dir=here,
        output=here / "site-check",
        components=divide(JobRequest(nodes=1), site),
        time_limit=site.time_limit,
        python=Path(sys.executable),
    )
    try:
        script = render(job, site, scheduler)
    except UserInputError as error:
        return Finding("error", "test", f"no script can be written: {error}")
    reply = ask(["sbatch", "--test-only"], text=script, timeout_s=60)
    told = " ".join(reply.error.split()).removeprefix("sbatch: ")
    if reply.good:
        return Finding("ok", "test", told or "sbatch --test-only takes a job of one node")
    return Finding("error", "test", f"sbatch --test-only refuses a job of one node: {told or reply.complaint}")
