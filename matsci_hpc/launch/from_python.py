"""`matsci_hpc.launch.submit`: from a config to a Job object of submitit's."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.chain import Link, make_chain
from matsci_hpc.launch.describe import describe_job
from matsci_hpc.launch.desk import remember
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.submitit_job import SubmititJob
from matsci_hpc.launch.via_submitit import SubmititDesk


def submit_config(
    config: Path | str,
    overrides: Iterable[str],
    *,
    site: str,
    nodes: int | None,
    ranks: int | None,
    time_limit: str | None,
    after: Sequence[SubmititJob | str | int],
    check: bool,
) -> SubmititJob:
    """As `matsci_hpc.launch.submit`."""
    machine = load_site(site)
    if machine.scheduler != "slurm":
        raise UserInputError(f"submitit submits to Slurm, and the site {site} has {machine.scheduler}")
    try:
        request = JobRequest(nodes=nodes, ranks=ranks, time_limit=time_limit)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserInputError(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from None
    ids = [each.job_id if isinstance(each, SubmititJob) else str(each) for each in after]
    for each in ids:
        if not each.isdecimal():
            raise UserInputError(f"after: {each!r} is no number of a job")
    last = _behind(after, describe_job(Path(config), overrides, machine, request))[-1]
    if check:
        from matsci_hpc.preflight.quick import refuse_impossible

        refuse_impossible([last], machine, ids)
    desk, job = SubmititDesk(), last.job
    handed = desk.hand_in(job, machine, ids)
    remember(job, desk, handed.job_id, ids)
    return handed


def _behind(after: Sequence[SubmititJob | str | int], job: Job) -> list[Link]:
    """The job as last one of a chain, so that it knows what the jobs before it make."""
    makers = {id(each): each.description for each in after if isinstance(each, SubmititJob) and each.description}
    chain = make_chain([*makers.values(), job])
    chain.sort(key=lambda link: (link.job.verb, link.job.output) == (job.verb, job.output))
    return chain
