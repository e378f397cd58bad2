"""`matsci-hpc cancel`: end jobs, and those that wait for them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.describe import absolute
from matsci_hpc.launch.jobs import all_standings
from matsci_hpc.launch.journal import login_hosts
from matsci_hpc.launch.queue import forget
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.schedulers.base import is_about_ended_jobs
from matsci_hpc.launch.script_desk import run_command
from matsci_hpc.launch.status import Standing


def cancel_jobs(targets: Sequence[str]) -> None:
    """End jobs by number or output folder, and those that could never run without them.

    Raises:
        UserInputError: A target is no job of ours.
        MachineError: The scheduler refuses.
    """
    found = [each for each in all_standings()[0] if each.entry.cluster == login_hosts()]
    chosen = [each for target in targets for each in _matching(target, found)]
    ended = [each for each in chosen if each.phase == "ended"]
    alive = list({each.job_id: each for each in chosen if each.phase != "ended"}.values())
    for each in ended if not alive else ():
        print(f"job {each.job_id} ({each.entry.name}) has ended already: {each.text}")
    waiting = [each for each in _dependents(alive, found) if each not in alive]
    for scheduler in {each.entry.scheduler for each in alive}:
        ids = [each.job_id for each in (*alive, *waiting) if each.entry.scheduler == scheduler]
        known = SCHEDULERS[scheduler]
        command = known.cancel_command(ids)
        answer = run_command(command, "cancel on a login node of the cluster")
        forget(scheduler)
        # PBS deletes what waits for a job together with it, and then misses it.
        if answer.returncode != 0 and not is_about_ended_jobs(known, answer.stderr):
            raise MachineError(f"{command[0]} refused: {answer.stderr.strip() or answer.stdout.strip()}")
    for each in (*alive, *waiting):
        why = "" if each in alive else ", which waited for it"
        print(f"cancelled job {each.job_id}: {each.entry.verb} {each.entry.name}{why}")


def _matching(target: str, found: Iterable[Standing]) -> list[Standing]:
    """Jobs that a person may have meant; of a folder only the newest, unless it holds the runs of an array."""
    by_number = [
        each for each in found if target in {each.job_id, each.entry.job_id, re.split(r"[_.]", each.entry.job_id)[0]}
    ]
    if by_number:
        return by_number
    path = absolute(Path(target))
    by_folder = [each for each in found if Path(each.entry.output) == path or Path(each.entry.output).parent == path]
    alive = [each for each in by_folder if each.phase != "ended"]
    if not by_folder:
        raise UserInputError(f"{target}: no job of this number or run directory was submitted from this account here")
    return alive or by_folder[-1:]


def _dependents(alive: Sequence[Standing], found: Sequence[Standing]) -> list[Standing]:
    """Jobs that wait for one of these, or for one that does."""
    numbers = {each.entry.job_id.partition("_")[0] for each in alive}
    waiting: list[Standing] = []
    for each in found:  # in the order of submission: what waits stands behind what it waits for
        if each.phase == "waiting" and numbers & set(each.entry.after):
            numbers.add(each.entry.job_id)
            waiting.append(each)
    return waiting
