"""From a config and a site to a job: everything about it that does not depend on the scheduler."""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from matsci_hpc.config.job import JobRequest
from matsci_hpc.config.loading import load_config, read_yaml
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.job import Component, Element, Job
from matsci_hpc.launch.sites.model import NodeKind, Site, limit_in_seconds

REPORT_LIMIT = "00:30:00"
"""Time limit of a report, which takes seconds to a few minutes; short jobs start earlier."""


def read_any_config(config: Path, overrides: Iterable[str]) -> TrainConfig | PrepConfig:
    """A config of whichever verb, checked now and not after hours in a queue.

    Raises:
        UserInputError: It cannot be read, is wrong, or of no known verb.
    """
    keys = read_yaml(config)
    train, prep = "run_dir" in keys, "out" in keys and "source" in keys
    if train == prep:
        raise UserInputError(
            f"{config}: cannot tell what to run; train has the key `run_dir`, prep has `source` and `out`"
        )
    listed = list(overrides)
    return load_config(TrainConfig, config, listed) if train else load_config(PrepConfig, config, listed)


def describe_job(config: Path, overrides: Iterable[str], site: Site, request: JobRequest | None = None) -> Job:
    """Describe the job that a config asks for.

    Args:
        config: The YAML file of a data preparation or a training run.
        overrides: Dotted `key=value` pairs.
        site: The machine.
        request: What the command line says of the job's size; wins over the config's `job`, which wins over the site.

    Raises:
        UserInputError: The config is wrong or of no known verb, or the numbers do not fit together.
    """
    overrides = tuple(overrides)
    checked = read_any_config(config, overrides)
    asked = _merged(checked.job, request or JobRequest())
    components = divide(asked, site)
    time_limit = asked.time_limit or site.time_limit
    if time_limit is None and site.scheduler in {"pbs", "lsf", "flux"}:
        raise UserInputError(
            f"give a time limit (--time, or time_limit in the site): {site.scheduler} warns no job before its end, and "
            "the script sets its own clock by it"
        )
    if time_limit is not None and limit_in_seconds(time_limit) <= site.signal_before_end_s:
        raise UserInputError(
            f"the time limit {time_limit} leaves no time to work: this site has jobs stop {site.signal_before_end_s} s "
            "before their end (signal_before_end_s)"
        )
    training = isinstance(checked, TrainConfig)
    if len(components) > 1 and not training:
        raise UserInputError(
            "preparation shares its work by MPI, which srun does not start across unequal nodes; take nodes of one kind"
        )
    output = absolute(checked.run_dir if isinstance(checked, TrainConfig) else checked.out)
    if isinstance(checked, TrainConfig) and checked.balance.speeds is None:
        overrides += _speeds(components)
    return Job(
        name=output.name or ("train" if training else "prep"),
        verb="train" if training else "prep",
        config=absolute(config),
        overrides=overrides,
        work_dir=Path.cwd(),
        output=output,
        reads=_reads(checked),
        components=components,
        time_limit=time_limit,
        python=Path(sys.executable),
        steps=checked.steps if isinstance(checked, TrainConfig) else None,
    )


def describe_report(run: Job, site: Site) -> Job:
    """The job that writes the report of a training run, on one rank."""
    components = divide(JobRequest(nodes=1, ranks=1, gpus_per_rank=0), site)
    limits = [limit for limit in (site.time_limit, REPORT_LIMIT) if limit is not None]
    return Job(
        name=f"{run.name}-report",
        verb="report",
        config=run.output,
        work_dir=run.work_dir,
        output=run.output,
        reads=(run.output,),
        components=components,
        time_limit=min(limits, key=limit_in_seconds),
        python=run.python,
    )


def spread(job: Job, key: str, values: list[str]) -> Job:
    """An array of runs that differ in one key, each in a run directory of its own below that of the job.

    Raises:
        UserInputError: Not a training run, or a value stands twice.
    """
    if job.verb != "train":
        raise UserInputError(f"{job.config}: only training runs make an array, by one key and its values")
    if key in {"run_dir", "job"} or key.startswith("job."):
        raise UserInputError(f"an array cannot differ in {key}: its runs share one request and get their own folders")
    if len(set(values)) < len(values):
        raise UserInputError(f"{key}: a value of the array stands twice, and its runs would share a folder")
    elements = []
    for value in values:
        output = job.output / f"{key}={value.replace('/', '_')}"
        elements.append(Element(overrides=(f"{key}={value}", f"run_dir={_yaml_text(output)}"), output=output))
        read_any_config(job.config, [*job.overrides, *elements[-1].overrides])
    if len({each.output for each in elements}) < len(elements):
        raise UserInputError(f"{key}: two values of the array would share a folder")
    return replace(job, elements=tuple(elements))


def divide(asked: JobRequest, site: Site) -> tuple[Component, ...]:
    """Nodes, and ranks on each of them.

    Raises:
        UserInputError: The numbers do not fit together, or the site does not know a kind of node.
    """
    if isinstance(asked.nodes, dict):
        if asked.ranks is not None:
            raise UserInputError("for a job of unequal nodes give the number of nodes of each kind, without ranks")
        return tuple(_of_kind(kind, nodes, asked, site) for kind, nodes in asked.nodes.items())
    nodes, ranks = asked.nodes, asked.ranks
    if site.scheduler == "local" and nodes not in {None, 1}:
        raise UserInputError(f"this machine is one node, not {nodes}; give the number of ranks, or another site")
    if ranks is None:
        return (_component(nodes or 1, site.ranks_per_node, asked, site, NodeKind()),)
    if nodes is None:
        nodes = 1 if site.scheduler == "local" else -(-ranks // site.ranks_per_node)
    if ranks % nodes:
        raise UserInputError(f"{ranks} ranks cannot be divided evenly over {nodes} nodes")
    return (_component(nodes, ranks // nodes, asked, site, NodeKind()),)


def absolute(path: Path) -> Path:
    """The absolute path; links stay, since /scratch/me may lead elsewhere on a compute node."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`


def _reads(config: TrainConfig | PrepConfig) -> tuple[Path, ...]:
    """Data sets and the run that a training run begins from."""
    if isinstance(config, PrepConfig):
        return ()
    begins = () if config.init_from is None else (config.init_from,)
    return tuple(absolute(each) for each in (*config.data.folders, *begins))


def _of_kind(kind: str, nodes: int, asked: JobRequest, site: Site) -> Component:
    if kind not in site.node_kinds:
        known = f"it knows {', '.join(site.node_kinds)}" if site.node_kinds else "it has no node_kinds"
        raise UserInputError(f"this site has no nodes of kind {kind!r}; {known}")
    found = site.node_kinds[kind]
    made = _component(nodes, found.ranks_per_node or site.ranks_per_node, asked, site, found)
    return replace(made, kind=kind)


def _component(nodes: int, ranks_per_node: int, asked: JobRequest, site: Site, kind: NodeKind) -> Component:
    return Component(
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        cpus_per_rank=asked.cpus_per_rank or kind.cpus_per_rank or site.cpus_per_rank,
        cpus_per_core=site.cpus_per_core,
        gpus_per_rank=_first(asked.gpus_per_rank, kind.gpus_per_rank, site.gpus_per_rank),
        memory=asked.memory or kind.memory or site.memory,
        partition=kind.partition or site.partition,
        options=(*site.options, *kind.options),
        launcher_options=tuple(kind.launcher_options),
        speed=kind.speed,
    )


def _first(*numbers: int | None) -> int:
    return next(number for number in numbers if number is not None)


def _merged(below: JobRequest, above: JobRequest) -> JobRequest:
    """A request with every key that `above` sets; nodes without ranks there drop the ranks below, and the reverse."""
    update = {key: value for key, value in above if value is not None}
    if "nodes" in update and "ranks" not in update:
        update["ranks"] = None
    elif "ranks" in update and "nodes" not in update:
        update["nodes"] = None
    return below.model_copy(update=update)


def _speeds(components: tuple[Component, ...]) -> tuple[str, ...]:
    """The override by which training divides its steps over ranks of unequal speed; none for equal ones."""
    speeds = [f"{each.speed:g}" for each in components for _ in range(each.ranks)]
    return (f"balance.speeds=[{', '.join(speeds)}]",) if len(set(speeds)) > 1 else ()


def _yaml_text(path: Path) -> str:
    """A path as an override holds it: a YAML text in single quotes."""
    return "'" + str(path).replace("'", "''") + "'"
