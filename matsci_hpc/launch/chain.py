"""Several jobs in the order in which they need each other: preparation, pretraining, fine-tuning, report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.job import Job, Need, status_file


@dataclass(frozen=True, slots=True)
class Link:
    """A job of a chain.

    Attributes:
        job: what is to be run.
        after: places in the chain of the jobs that must succeed first.
    """

    job: Job
    after: tuple[int, ...]


def make_chain(jobs: Sequence[Job]) -> list[Link]:
    """Put jobs in order: one that reads what another writes comes after it.

    Raises:
        UserInputError: Two jobs write the same, or need each other.
    """
    _refuse_shared_outputs(jobs)
    makers = {i: [j for j, maker in enumerate(jobs) if j != i and _needs(job, maker)] for i, job in enumerate(jobs)}
    try:
        order = list(TopologicalSorter(makers).static_order())
    except CycleError as error:
        names = " -> ".join(str(jobs[i].config) for i in error.args[1])
        raise UserInputError(f"these runs wait for each other: {names}") from None
    # As given wherever nothing speaks against it, so that the numbers of the jobs rise in the order of the command.
    order.sort(key=lambda i: (_depth(i, makers), i))
    place = {i: at for at, i in enumerate(order)}
    needed = {j for each in makers.values() for j in each}
    return [
        Link(
            replace(
                jobs[i],
                needs=tuple(
                    need for j in sorted(makers[i], key=place.__getitem__) for need in _needs(jobs[i], jobs[j])
                ),
                has_dependents=i in needed,
            ),
            tuple(sorted(place[j] for j in makers[i])),
        )
        for i in order
    ]


def _needs(job: Job, maker: Job) -> list[Need]:
    """What `job` reads of all that `maker` writes."""
    if maker.verb == "report":
        return []
    outputs = [each.output for each in maker.elements] or [maker.output]
    return [
        Need(marker=output / maker.marker.name, status=status_file(maker.verb, output))
        for output in outputs
        if any(read == output or output in read.parents for read in job.reads)
    ]


def _refuse_shared_outputs(jobs: Sequence[Job]) -> None:
    seen: dict[tuple[bool, Path], Job] = {}
    for job in jobs:
        for output in [each.output for each in job.elements] or [job.output]:
            other = seen.setdefault((job.verb == "report", output), job)
            if other is not job:
                raise UserInputError(f"{other.config} and {job.config} both write {output}; give each its own folder")


def _depth(i: int, makers: dict[int, list[int]]) -> int:
    """Longest way from a job that needs none."""
    return 1 + max((_depth(j, makers) for j in makers[i]), default=-1)
