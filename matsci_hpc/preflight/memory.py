"""Memory of a rank against its part of a node.

    need = program + weights, gradients, Adam, running mean + KEPT_BYTES + FACTOR x work + planning

`work` are the tensors that live at the peak of the largest step of the largest share. The process keeps far more than
them: every step has other shapes, and freed blocks of other sizes stay. Both constants are a fit to what real runs came
to in some hundred steps (`benchmarks/memory.py`).
"""

import os
from collections.abc import Iterator

from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.sites.model import Site, memory_in_bytes
from matsci_hpc.preflight.finding import Finding, Level
from matsci_hpc.preflight.measured import Trial
from matsci_hpc.preflight.words import bytes_in_words, counted

FACTOR = 9.0
"""Memory that a step leaves with the process over that of its tensors."""
KEPT_BYTES = 300_000_000
"""What a process keeps however small its steps are."""


def expected_bytes(trial: Trial) -> float:
    """Private memory that a rank will come to, with what the allocator keeps."""
    work = max(trial.work_bytes * FACTOR + KEPT_BYTES, trial.peak_bytes - trial.program_bytes - trial.fixed_bytes)
    return trial.program_bytes + trial.fixed_bytes + work + trial.planning_bytes


def least_bytes(trial: Trial) -> float:
    """Private memory without which no step of the largest share is possible."""
    return trial.program_bytes + trial.fixed_bytes + trial.work_bytes


def memory_findings(trial: Trial, job: Job, site: Site, staged_bytes: int = 0) -> Iterator[Finding]:
    """Whether the ranks of each node fit into what the job can have of it.

    Args:
        trial: of this run.
        job: the ranks.
        site: the machine.
        staged_bytes: data that are kept in the memory of each node.
    """
    need = (
        f"about {bytes_in_words(expected_bytes(trial))} a rank ({bytes_in_words(trial.program_bytes)} program, "
        f"{bytes_in_words(trial.fixed_bytes)} weights and optimiser, {bytes_in_words(trial.work_bytes)} tensors of the "
        f"largest step, and what the process keeps of freed ones: {FACTOR:g} times that and "
        f"{bytes_in_words(KEPT_BYTES)})"
    )
    for each in job.components:
        ranks = each.ranks_per_node if site.scheduler != "local" else job.ranks
        there = node_bytes(each, site)
        if there is None:
            text = f"{need}; neither job.memory nor memory_per_node of the site tells what there is"
            yield Finding("note", "memory", text, f"ask for {_to_ask(trial, ranks, staged_bytes)} a node at least")
            continue
        room = there - staged_bytes
        data = f" after {bytes_in_words(staged_bytes)} of data" if staged_bytes else ""
        kind = f" of kind {each.kind}" if each.kind else ""
        share = f"{counted(ranks, 'rank')} share {bytes_in_words(max(room, 0))} of a node{kind}{data}"
        advice = "fewer ranks_per_node, a smaller batch, or batch.micro_cost"
        level: Level
        if least_bytes(trial) * ranks > room:
            level, verdict = "error", "too little even for the tensors"
        elif expected_bytes(trial) * ranks > room:
            level, verdict = "warning", "which may be too little"
        else:
            yield Finding("ok", "memory", f"{need}; {share}")
            continue
        yield Finding(level, "memory", f"{need}; {share}, {verdict}", advice)


def node_bytes(asked: Component, site: Site) -> int | None:
    """Bytes of a node that the job can use; None where nobody tells."""
    if site.scheduler == "local":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if asked.memory is not None and memory_in_bytes(asked.memory) > 0:
        return memory_in_bytes(asked.memory)
    if asked.kind is None and site.memory_per_node is not None:
        return memory_in_bytes(site.memory_per_node)
    return None


def _to_ask(trial: Trial, ranks: int, staged_bytes: int) -> str:
    """As `job.memory` takes it."""
    return f"{-(-int(expected_bytes(trial) * ranks + staged_bytes) // (1 << 30))}G"
