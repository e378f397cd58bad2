"""Ranks, cores, GPUs and memory against a node, and ranks against the work that there is for them."""

import os
from collections.abc import Iterator

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.sites.model import Site, memory_in_bytes
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.words import bytes_in_words, counted

FEW_GRAPHS = 2
"""Graphs of a rank in a step below which its time depends on which graphs it gets."""


def node_findings(job: Job, site: Site) -> Iterator[Finding]:
    """What is asked of each node against what it has."""
    if site.scheduler == "local":
        cores = len(os.sched_getaffinity(0))
        if job.ranks > cores:
            text = f"{counted(job.ranks, 'rank')} on the {counted(cores, 'core')} of this machine take turns"
            yield Finding("warning", "node", text, "they are no faster than as many ranks as cores")
        else:
            yield Finding("ok", "node", f"{counted(job.ranks, 'rank')} on {counted(cores, 'core')}")
        return
    for each in job.components:
        yield from _component(each, site)


def _component(asked: Component, site: Site) -> Iterator[Finding]:
    # The site file tells the size of its usual nodes only.
    of_kind = f" of kind {asked.kind}" if asked.kind else ""
    cores, gpus = asked.ranks_per_node * asked.cpus_per_rank, asked.ranks_per_node * asked.gpus_per_rank
    ranks = f"{counted(asked.ranks_per_node, 'rank')} a node{of_kind} x {counted(asked.cpus_per_rank, 'core')}"
    if asked.kind is not None or site.cores_per_node is None:
        yield Finding(
            "note", "node", f"{ranks} = {counted(cores, 'core')}; the site file tells no cores of such a node"
        )
    elif cores > site.cores_per_node:
        yield Finding(
            "error",
            "node",
            f"{ranks} = {counted(cores, 'core')}, and a node has {site.cores_per_node}",
            "give more nodes for these ranks (--nodes), or less cpus_per_rank",
        )
    else:
        yield Finding("ok", "node", f"{ranks} = {cores} of its {counted(site.cores_per_node, 'core')}")
    if asked.kind is None and gpus > (site.gpus_per_node if site.gpus_per_node is not None else gpus):
        yield Finding(
            "error",
            "node",
            f"{counted(asked.ranks_per_node, 'rank')} a node x {counted(asked.gpus_per_rank, 'GPU')} = "
            f"{counted(gpus, 'GPU')}, and a node has {site.gpus_per_node}",
            "give more nodes for these ranks (--nodes), or less gpus_per_rank",
        )
    if asked.kind is None and asked.memory is not None and site.memory_per_node is not None:
        wanted, there = memory_in_bytes(asked.memory), memory_in_bytes(site.memory_per_node)
        if wanted > there:
            yield Finding(
                "error",
                "node",
                f"{asked.memory} of memory are asked for ({bytes_in_words(wanted)}), and a job can have "
                f"{site.memory_per_node} ({bytes_in_words(there)}) of a node",
                "lower job.memory, or 0 for all of it",
            )


def batch_findings(config: TrainConfig, ranks: int) -> Iterator[Finding]:
    """Whether a step has work for every rank, by the config alone."""
    graphs = config.batch.graphs
    if graphs is None:
        return
    each = f"{counted(graphs, 'graph')} a step on {counted(ranks, 'rank')}"
    if graphs < ranks:
        yield Finding(
            "warning",
            "batch",
            f"{each}: in every step {ranks - graphs:,} have nothing to do",
            f"at most {graphs} ranks, or a larger batch.graphs",
        )
    elif graphs < FEW_GRAPHS * ranks:
        yield Finding(
            "warning",
            "batch",
            f"{each}: most have one, and all wait for the rank with the largest",
            "fewer ranks, or a larger batch.graphs",
        )
    else:
        yield Finding("ok", "batch", f"{each}, {graphs / ranks:.3g} each")


def speed_findings(config: TrainConfig, ranks: int) -> Iterator[Finding]:
    """Speeds by hand against the number of ranks."""
    speeds = config.balance.speeds
    if speeds is not None and len(speeds) != ranks:
        text = f"balance.speeds names {counted(len(speeds), 'rank')}, and the job has {ranks:,}"
        yield Finding("error", "batch", text, "give as many speeds as ranks, or leave them out")


def block_findings(config: PrepConfig, inputs: int, ranks: int, *, exact: bool = True) -> Iterator[Finding]:
    """Whether preparation has a block of inputs for every rank.

    Args:
        config: of the preparation.
        inputs: that the source has.
        ranks: of the job.
        exact: whether `inputs` was counted to the end.
    """
    blocks = -(-inputs // config.shard_size)
    about = "" if exact else "about "
    text = f"{about}{counted(inputs, 'input')} in {counted(blocks, 'block')} of {config.shard_size:,}"
    if blocks < ranks:
        fitting = max(1, inputs // ranks)
        yield Finding(
            "warning",
            "blocks",
            f"{text}, so {ranks - blocks:,} of {counted(ranks, 'rank')} get none",
            f"at most {counted(blocks, 'rank')}, or shard_size {fitting} or less",
        )
    else:
        yield Finding("ok", "blocks", f"{text} for {counted(ranks, 'rank')}")
