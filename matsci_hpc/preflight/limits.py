"""What is asked of the queue against what the site file knows of it."""

import os
from collections.abc import Iterator

from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.model import Site, limit_in_seconds
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.words import time_in_words


def account_findings(site: Site) -> Iterator[Finding]:
    """Whether the job can be charged."""
    if (
        site.account_required
        and site.account is None
        and not (site.scheduler == "slurm" and os.environ.get("SBATCH_ACCOUNT"))
    ):
        yield Finding("error", "account", "this site charges every job to an account", "set `account` in a copy of it")


def time_limit_findings(job: Job, site: Site) -> Iterator[Finding]:
    """Whether the queue grants the time limit, and whether there is time before it to save."""
    if site.scheduler == "local":
        return
    if job.time_limit is None:
        if job.verb == "train":
            text = "no time limit is asked for; the default of the queue holds, which is not known here"
            yield Finding("note", "time limit", text, "give --time")
        return
    limit_s, text = limit_in_seconds(job.time_limit), f"{job.time_limit} is asked for"
    if limit_s == 0:
        yield Finding("error", "time limit", text, "give --time as [D-]HH:MM:SS")
    elif site.max_time_limit is not None and limit_s > limit_in_seconds(site.max_time_limit):
        advice = "training goes on in the next life, so shorter ones do"
        yield Finding("error", "time limit", f"{text}, and the queue grants {site.max_time_limit}", advice)
    elif job.verb != "report" and limit_s <= site.signal_before_end_s:
        yield Finding(
            "error",
            "time limit",
            f"{text}, and the signal to save comes {time_in_words(site.signal_before_end_s)} before its end: at once",
            "ask for more time, or lower signal_before_end_s of the site",
        )
    else:
        granted = f", of {site.max_time_limit} that the queue grants" if site.max_time_limit else ""
        yield Finding("ok", "time limit", f"{text}{granted}")
