"""What takes jobs, and the note of each in the journal."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matsci_hpc.launch.job import Job
from matsci_hpc.launch.journal import new_entry, write_entry
from matsci_hpc.launch.sites.model import Site


class Desk(Protocol):
    """Takes jobs: a scheduler, or submitit."""

    scheduler: str
    via: str
    has_arrays: bool

    def preview(self, job: Job, site: Site, after: Sequence[str]) -> str:
        """Exactly what would be submitted, and by which command."""
        ...

    def submit(self, job: Job, site: Site, after: Sequence[str]) -> str:
        """Submit a job and give its number."""
        ...

    def log(self, job: Job, job_id: str) -> Path:
        """Where its output goes."""
        ...


def remember(job: Job, desk: Desk, job_id: str, after: Sequence[str]) -> None:
    """Note a submitted job for `matsci-hpc jobs`; without the note it runs all the same."""
    entry = new_entry(
        job_id=job_id,
        scheduler=desk.scheduler,
        via=desk.via,
        name=job.name,
        verb=job.verb,
        output=str(job.output),
        outputs=tuple(str(each.output) for each in job.elements),
        status=str(job.status),
        log=str(desk.log(job, job_id)),
        nodes=job.nodes,
        ranks=job.ranks,
        steps=job.steps,
        after=tuple(after),
    )
    try:
        write_entry(entry)
    except OSError as error:
        print(f"matsci-hpc: warning: `matsci-hpc jobs` will not know job {job_id}: {error}", file=sys.stderr)
