"""`matsci-hpc study submit` and `compare submit`: the same runs, handed to a scheduler."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from matsci_hpc.config.run_set import RunSetConfig
from matsci_hpc.config.study import StudyConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.chain import make_chain
from matsci_hpc.launch.job import Element, Job
from matsci_hpc.launch.jobs import all_standings
from matsci_hpc.launch.journal import read_entries
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.start import hand_in, one_by_one, open_desk
from matsci_hpc.scaling.study_folder import StudyFolder, data_to_make, state_of
from matsci_hpc.scaling.study_plan import StudyRun, plan_runs
from matsci_hpc.scaling.study_run import runs_to_make


def submit_study(
    study: StudyConfig, site_name: str | None, *, via: Literal["script", "submitit"], check: bool, dry_run: bool
) -> None:
    """Submit the runs of a study that are missing and not queued yet.

    Raises:
        UserInputError, MachineError: as of `submit_runs`.
    """
    submit_runs(study, lambda site: plan_runs(study, site), site_name, via=via, check=check, dry_run=dry_run)


def submit_runs(
    study: RunSetConfig,
    plan: Callable[[Site], Sequence[StudyRun]],
    site_name: str | None,
    *,
    via: Literal["script", "submitit"],
    check: bool,
    dry_run: bool,
) -> None:
    """Submit the runs that are missing and not queued yet; those of one size are an array where the scheduler has them.

    Args:
        study: the set of runs.
        plan: its runs in their order.
        site_name: instead of the site that the config names.
        via: job scripts, or submitit.
        check: whether to look for what must fail.
        dry_run: whether to print only.

    Raises:
        UserInputError: study, site and what lies in its folder do not fit, or something must fail.
        MachineError: the scheduler is missing or refuses.
    """
    name = site_name or study.site
    site = load_site(name)
    desk = open_desk(site, via)
    if desk is None:
        raise UserInputError(
            f"the site {name} has no scheduler: `matsci-hpc {study.verb} run` runs the {study.kind} on this machine"
        )
    runs = plan(site)
    folder = StudyFolder(study)
    missing = runs_to_make(study, site, folder, runs)
    queued = _queued(missing)
    missing = [run for run in missing if run.name not in queued]
    about = f"{len(runs)} runs: {len(runs) - len(missing) - len(queued)} complete, {len(queued)} queued"
    if not missing:
        print(f"{'# ' if dry_run else ''}{about}, nothing is left to submit")
        return
    jobs = list(_jobs(missing, folder))
    if not desk.has_arrays:
        jobs = [
            replace(each, name=each.output.name)
            for job in jobs
            for each in (one_by_one(job) if job.elements else [job])
        ]
    chain = make_chain([*data_to_make(study, site), *jobs])
    if check:
        from matsci_hpc.preflight.quick import refuse_impossible

        refuse_impossible(chain, site, dry_run=dry_run)
    if not dry_run:
        print(f"{about}, {len(missing)} to submit", flush=True)
        lock = folder.lock()
        lock.acquire()
        try:
            folder.keep_study(study)
            for run in missing:
                if study.by_time and state_of(run).standing == "broken off":
                    folder.set_aside(run)
                    print(f"{run.name}: begins anew, it was broken off", flush=True)
                folder.note_start(run, name, via=via)
        finally:
            lock.release()
    hand_in(chain, site, desk, dry_run=dry_run)


def _jobs(runs: list[StudyRun], folder: StudyFolder) -> Iterator[Job]:
    """Jobs in the order of the plan: training runs of one size together, in an array."""
    groups: dict[tuple[object, ...], list[StudyRun]] = {}
    for run in runs:
        # A preparation is no part of an array: each one is a group of its own.
        key = (run.job.components,) if run.job.verb == "train" else (run.name,)
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        first = group[0]
        if len(group) == 1:
            yield first.job
            continue
        kinds = "+".join(f"{each.nodes}{each.kind or ''}" for each in first.job.components)
        name = f"{folder.path.name}_ranks={first.job.ranks}_nodes={kinds}"
        name += f"_threads={first.threads}" if first.threads is not None else ""
        elements = tuple(Element(overrides=run.job.overrides, output=run.job.output) for run in group)
        reads = tuple(dict.fromkeys(path for run in group for path in run.job.reads))
        yield replace(first.job, name=name, overrides=(), output=folder.jobs / name, reads=reads, elements=elements)


def _queued(runs: Sequence[StudyRun]) -> set[str]:
    """Runs that wait in a queue or run there, as the journal of this account and the scheduler tell."""
    outputs = {str(run.job.output): run.name for run in runs}
    known = {output for entry in read_entries() for output in (entry.outputs or (entry.output,))}
    if not known & outputs.keys():
        return set()
    standings, _ = all_standings()
    busy = {each.entry.output for each in standings if each.phase in {"waiting", "running"}}
    return {name for output, name in outputs.items() if output in busy}
