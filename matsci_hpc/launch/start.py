"""`matsci-hpc submit`: from configs and the name of a site to started jobs."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.chain import Link, make_chain
from matsci_hpc.launch.describe import describe_job, describe_report, spread
from matsci_hpc.launch.desk import Desk, remember
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.local import run_chain_here
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.sites.model import Site


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a command line asks for.

    Attributes:
        runs: configs with their overrides.
        site: name of a shipped site, or the path of a site file.
        request: size of the jobs, which wins over the configs.
        array: a key and its values: one training run for each value.
        report: also write the report of every training run.
        after: numbers of jobs that must succeed first.
        via: a script of ours for the scheduler, or submitit.
        check: look for what must fail before anything is submitted.
    """

    runs: Sequence[tuple[Path, tuple[str, ...]]]
    site: str
    request: JobRequest = field(default_factory=JobRequest)
    array: tuple[str, list[str]] | None = None
    report: bool = False
    after: Sequence[str] = ()
    via: Literal["script", "submitit"] = "script"
    check: bool = True


def start(wish: Wish, *, dry_run: bool) -> int:
    """Start jobs, or print what would be started and touch nothing.

    Returns:
        Exit code: of the runs themselves for a local site, 0 after a submission.

    Raises:
        UserInputError: Config, overrides, site or numbers are wrong.
        MachineError: The launcher or the scheduler is missing or refuses.
    """
    site = load_site(wish.site)
    desk = open_desk(site, wish.via)
    chain = plan_chain(wish, site, arrays=desk is not None and desk.has_arrays)
    if wish.check:
        from matsci_hpc.preflight.quick import refuse_impossible

        refuse_impossible(chain, site, wish.after, dry_run=dry_run)
    if desk is None:
        if wish.after:
            raise UserInputError("--after names jobs of a scheduler, and this site has none")
        return run_chain_here(chain, site, dry_run=dry_run)
    hand_in(chain, site, desk, wish.after, dry_run=dry_run)
    return 0


def hand_in(chain: Sequence[Link], site: Site, desk: Desk, after: Sequence[str] = (), *, dry_run: bool) -> None:
    """Submit a chain, or print what would be submitted.

    Raises:
        UserInputError: A job cannot be written as a script.
        MachineError: The scheduler is missing or refuses.
    """
    if dry_run:
        print("\n".join(_previews(chain, site, desk, after)), end="")
        return
    _submit(chain, site, desk, after)


def plan_chain(wish: Wish, site: Site, *, arrays: bool) -> list[Link]:
    """The jobs of a wish in order.

    Args:
        wish: what is asked for.
        site: the machine.
        arrays: several runs can be one job there; otherwise each becomes a job of its own.
    """
    jobs = [describe_job(config, overrides, site, wish.request) for config, overrides in wish.runs]
    if wish.array is not None:
        if len(jobs) != 1:
            raise UserInputError(f"an array is made of one config, not {len(jobs)}")
        whole = spread(jobs[0], *wish.array)
        jobs = [whole] if arrays else list(one_by_one(whole))
    runs = [job for job in jobs if job.verb == "train"]
    if wish.report:
        if not runs:
            raise UserInputError("--report: none of these is a training run")
        if any(job.elements for job in runs):
            raise UserInputError("--report is for single runs; use `matsci-hpc report` on each run of the array")
        jobs += [describe_report(job, site) for job in runs]
    return make_chain(jobs)


def open_desk(site: Site, via: str) -> Desk | None:
    """Where jobs are handed in; None for this machine.

    Raises:
        UserInputError: submitit is wanted, and the site has no Slurm.
    """
    if via == "submitit":
        if site.scheduler != "slurm":
            raise UserInputError(f"submitit submits to Slurm, and this site has {site.scheduler}")
        from matsci_hpc.launch.via_submitit import SubmititDesk

        return SubmititDesk()
    if site.scheduler == "local":
        return None
    from matsci_hpc.launch.script_desk import ScriptDesk

    return ScriptDesk(SCHEDULERS[site.scheduler])


def one_by_one(array: Job) -> Iterator[Job]:
    """The runs of an array as jobs of their own."""
    for each in array.elements:
        name = f"{array.name}-{each.output.name}"
        yield replace(array, name=name, overrides=array.overrides + each.overrides, output=each.output, elements=())


def _previews(chain: Sequence[Link], site: Site, desk: Desk, after: Sequence[str]) -> Iterator[str]:
    for link in chain:
        before = [f"<{chain[i].job.name}>" for i in link.after]
        yield desk.preview(link.job, site, [*after, *before])


def _submit(chain: Sequence[Link], site: Site, desk: Desk, after: Sequence[str]) -> None:
    ids: list[str] = []
    for link in chain:
        before = [*after, *(ids[i] for i in link.after)]
        try:
            ids.append(desk.submit(link.job, site, before))
        except Exception:
            if ids:
                print(f"submitted before that, and not taken back: {' '.join(ids)}", file=sys.stderr, flush=True)
            raise
        remember(link.job, desk, ids[-1], before)
        _announce(link.job, desk, ids[-1], before)
    print("  state   matsci-hpc jobs")


def _announce(job: Job, desk: Desk, job_id: str, after: Sequence[str]) -> None:
    runs = f", {len(job.elements)} runs" if job.elements else ""
    waits = f", after {', '.join(after)}" if after else ""
    print(f"job {job_id}: {job.verb} {job.name}, nodes {job.nodes}, ranks {job.ranks}{runs}{waits}")
    print(f"  log     tail -F {shlex.quote(str(desk.log(job, job_id)))}")
    if job.verb == "train" and not job.elements:
        print(f"  stop    touch {shlex.quote(f'{job.output}/STOP')} (saves first), or matsci-hpc cancel {job_id}")
