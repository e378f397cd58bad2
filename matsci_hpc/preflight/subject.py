"""What is looked at: a single run of a chain, with its job, its config and the machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.launch.chain import Link
from matsci_hpc.launch.describe import absolute, read_any_config
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.model import Site


@dataclass(frozen=True, slots=True)
class Subject:
    """One run. The runs of an array are a subject each.

    Attributes:
        job: the job that it is, or is a part of.
        config: its config; None for a report.
        overrides: `key=value` of this run.
        output: its run directory or data set.
        site: the machine.
        awaited: what earlier jobs make: it need not be there yet.
        after: there are other jobs before it, which may make anything.
    """

    job: Job
    config: TrainConfig | PrepConfig | None
    overrides: tuple[str, ...]
    output: Path
    site: Site
    awaited: frozenset[Path] = frozenset()
    after: bool = False

    def is_awaited(self, path: Path) -> bool:
        """Whether an earlier job makes this, or a folder that it lies in."""
        found = absolute(path)
        return found in self.awaited or not self.awaited.isdisjoint(found.parents)


def subjects_of(chain: Sequence[Link], site: Site, *, after: bool = False) -> Iterator[Subject]:
    """Every run of a chain, in order.

    Args:
        chain: the jobs.
        site: the machine.
        after: jobs that are queued already come before it.
    """
    for link in chain:
        job = link.job
        awaited = frozenset(need.marker.parent for need in job.needs)
        if job.verb == "report":
            yield Subject(job, None, (), job.output, site, awaited, after)
            continue
        runs = [((*job.overrides, *each.overrides), each.output) for each in job.elements]
        for overrides, output in runs or [(job.overrides, job.output)]:
            yield Subject(job, read_any_config(job.config, overrides), overrides, output, site, awaited, after)
