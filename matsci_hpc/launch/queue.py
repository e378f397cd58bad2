"""What the scheduler says of our jobs: one question for all of them, at most every 30 s."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from matsci_hpc.errors import MachineError
from matsci_hpc.launch.journal import login_hosts, state_folder
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.schedulers.base import QueueState, is_about_ended_jobs
from matsci_hpc.launch.script_desk import run_command

PERIOD_S = 30.0
"""Least time between two questions: a scheduler answers a whole cluster, and people like to press return."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scheduler said.

    Attributes:
        states: by job number; a job that is not in it has ended long ago.
        age_s: how long ago it was said.
    """

    states: dict[str, QueueState]
    age_s: float


def ask(scheduler: str, job_ids: Sequence[str]) -> Answer:
    """The state of jobs, from the scheduler or from its answer of the last 30 s.

    Args:
        scheduler: name of it.
        job_ids: jobs to ask for; a number that the kept answer was not asked for makes a new question.

    Raises:
        MachineError: The scheduler does not answer.
    """
    kept = _kept(scheduler, job_ids)
    if kept is not None:
        return kept
    known = SCHEDULERS[scheduler]
    command = known.query_command(job_ids)
    answer = run_command(command, "ask on a login node of the cluster")
    silent = answer.returncode != 0 and not answer.stdout.strip()
    if silent and not is_about_ended_jobs(known, answer.stderr):
        raise MachineError(f"{command[0]} does not answer: {answer.stderr.strip() or f'exit code {answer.returncode}'}")
    states = dict(known.states(answer.stdout))
    _keep(scheduler, job_ids, states)
    return Answer(states, 0.0)


def forget(scheduler: str) -> None:
    """Ask anew the next time, because something was changed."""
    with suppress(OSError):  # what cannot be taken away is too old in 30 s
        _path(scheduler).unlink(missing_ok=True)


def _path(scheduler: str) -> Any:
    return state_folder() / f"queue-{scheduler}-{login_hosts()}.json"


def _kept(scheduler: str, job_ids: Sequence[str]) -> Answer | None:
    try:
        record = json.loads(_path(scheduler).read_text(encoding="utf-8"))
        age_s = time.time() - record["time"]
        if not 0 <= age_s < PERIOD_S or not set(job_ids) <= set(record["asked"]):
            return None
        return Answer({job_id: QueueState(**state) for job_id, state in record["states"].items()}, age_s)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(scheduler: str, job_ids: Sequence[str], states: dict[str, QueueState]) -> None:
    record = {
        "time": time.time(),
        "asked": sorted(job_ids),
        "states": {job_id: asdict(state) for job_id, state in states.items()},
    }
    path = _path(scheduler)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(path)
    except OSError:  # a read-only home costs a question, not the answer
        return
