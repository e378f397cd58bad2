"""`matsci-hpc study run` and `compare run`: the runs of a set one after the other on this machine."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from matsci_hpc.config.run_set import RunSetConfig
from matsci_hpc.config.study import StudyConfig
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.local import local_command, run_local
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.scaling.study_code import refuse_other_code, refuse_other_threads
from matsci_hpc.scaling.study_folder import StudyFolder, data_to_make, last_line, state_of
from matsci_hpc.scaling.study_plan import StudyRun, plan_runs, site_of

BUSY = 0.5
"""Load of a core from which on other programs matter."""
RunT = TypeVar("RunT", bound=StudyRun)
STOPPED = 130
"""Exit code of a study that was asked to stop."""


def run_study(study: StudyConfig, site_name: str | None = None) -> int:
    """Make what is missing of a study; call it again to go on.

    Finished runs are kept. One that was broken off is set aside and begun anew, since its times are of two lives.

    Returns:
        As of `run_here`.

    Raises:
        UserInputError, MachineError: as of `run_here`.
    """
    from matsci_hpc.scaling.measure import measure

    def tell(run: StudyRun) -> str:
        found = measure(run, study.warmup_steps)
        step = f", {1e3 * found.step_time_s:.1f} ms a step" if found.step_time_s is not None else ""
        return f"{found.throughput:,.0f} samples/s{step}"

    return run_here(study, lambda site: plan_runs(study, site), tell, site_name)


def run_here(
    config: RunSetConfig,
    plan: Callable[[Site], Sequence[RunT]],
    tell: Callable[[RunT], str],
    site_name: str | None = None,
) -> int:
    """Make what is missing of a set of runs.

    Args:
        config: of the set.
        plan: its runs in their order.
        tell: what a complete run came to, in a few words; raises UserInputError where its records lack that.
        site_name: of this machine, instead of the site that the config names.

    Returns:
        Exit code: 0 if all runs are complete, else that of the first that failed.

    Raises:
        UserInputError: config, site and what lies in its folder do not fit, or a data set cannot be prepared.
        MachineError: no launcher, or the folder cannot be written.
    """
    name = site_name or config.site
    site = load_site(name)
    if site.scheduler != "local":
        raise UserInputError(
            f"the site {name} has {site.scheduler}: `matsci-hpc {config.verb} submit` hands runs to it; "
            "--site local runs them here"
        )
    runs = plan(site)
    data = data_to_make(config, site)
    folder = StudyFolder(config)
    lock = folder.lock()
    lock.acquire()
    try:
        missing = runs_to_make(config, site, folder, runs)
        folder.keep_study(config)
        print(f"{len(runs)} runs, {len(runs) - len(missing)} of them complete; logs: {folder.logs}", flush=True)
        if missing:
            if config.by_time:
                _warn_of_others()
            for job in data:
                _prepare(job, site, folder)
        return _make(runs, missing, _Place(name, site, folder, tell, begins_anew=config.by_time))
    finally:
        lock.release()


def runs_to_make(study: RunSetConfig, site: Site, folder: StudyFolder, runs: Sequence[RunT]) -> list[RunT]:
    """Runs that are not complete; broken ones are set aside later, when their turn comes.

    Raises:
        UserInputError: a folder holds a run of another study, of other code, or of other threads.
    """
    states = {run.name: state_of(run, folder.log(run.name)) for run in runs}
    foreign = [f"{name} {state.reason}" for name, state in states.items() if state.standing == "of another study"]
    if foreign:
        more = [f"and {len(foreign) - 3} more"] if len(foreign) > 3 else []
        raise UserInputError("\n".join(foreign[:3] + more))
    complete = [run for run in runs if states[run.name].standing == "complete"]
    missing = [run for run in runs if states[run.name].standing != "complete"]
    refuse_other_code(study, site, complete)
    if missing and study.by_time:
        refuse_other_threads(study, site, complete)
    return missing


def _warn_of_others() -> None:
    """Say that other programs take cores, which the times will show."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > cores * BUSY:
        print(
            f"matsci-hpc: warning: this machine is busy (load {load:.1f} on {cores} cores), and the times will show it",
            file=sys.stderr,
            flush=True,
        )


def _prepare(job: Job, site: Site, folder: StudyFolder) -> None:
    """Make a data set."""
    log = folder.log(f"prepare-{job.name}")
    start_s = time.monotonic()
    code = run_local(local_command(job, site), log)
    if code != 0 or not job.marker.exists():
        raise UserInputError(f"{job.config}: preparing {job.output} failed: {last_line(log)}; its log: {log}")
    print(f"prepared {job.output} in {time.monotonic() - start_s:.1f} s", flush=True)


@dataclass(frozen=True, slots=True)
class _Place(Generic[RunT]):
    """Where and how runs are made.

    Attributes:
        name: of the site.
        site: this machine.
        folder: of the study.
        tell: what a complete run came to.
        begins_anew: whether a run that was broken off is of no use; else it goes on from its checkpoint.
    """

    name: str
    site: Site
    folder: StudyFolder
    tell: Callable[[RunT], str]
    begins_anew: bool


def _make(runs: Sequence[RunT], missing: Sequence[RunT], place: _Place[RunT]) -> int:
    failed: list[tuple[str, int]] = []
    for run in missing:
        state = state_of(run, place.folder.log(run.name))
        where = f"[{runs.index(run) + 1}/{len(runs)}] {run.name}"
        if state.standing == "busy":
            print(f"{where}: left alone: {state.reason}", flush=True)
            failed.append((run.name, UserInputError.exit_code))
            continue
        if state.standing == "broken off" and not place.begins_anew:
            print(f"{where}: goes on, it was {state.reason}", flush=True)
        elif state.standing == "broken off":
            place.folder.set_aside(run)
            print(f"{where}: begins anew, it was {state.reason}", flush=True)
        code, text = _make_one(run, place)
        print(f"{where}: {text}", flush=True)
        if code == STOPPED:
            print("stopped; the same command goes on from here", file=sys.stderr, flush=True)
            return STOPPED
        if code != 0:
            failed.append((run.name, code))
    if failed:
        print(f"not complete: {', '.join(name for name, _ in failed)}; the same command tries again", file=sys.stderr)
        return failed[0][1]
    return 0


def _make_one(run: RunT, place: _Place[RunT]) -> tuple[int, str]:
    """Start a run and wait for it.

    Returns:
        Its exit code, 130 if it was asked to stop; and one line about it.
    """
    log = place.folder.log(run.name)
    log.unlink(missing_ok=True)
    command = local_command(run.job, site_of(run, place.site))
    load = round(os.getloadavg()[0], 2)
    place.folder.note_start(run, place.name, load=load)
    start_s = time.monotonic()
    code = run_local(command, log)
    wall_s = time.monotonic() - start_s
    place.folder.note_start(run, place.name, load=load, wall_s=round(wall_s, 3), exit_code=code)
    if code == 0 and not run.job.marker.exists():
        return STOPPED, f"stopped after {wall_s:.1f} s"
    if code in {130, 143}:
        return STOPPED, f"ended by a signal after {wall_s:.1f} s"
    if code != 0:
        return code, f"failed with exit code {code}: {last_line(log)}; its log: {log}"
    try:
        return 0, f"{place.tell(run)}, {wall_s:.1f} s in all"
    except UserInputError as error:
        return MachineError.exit_code, str(error)
