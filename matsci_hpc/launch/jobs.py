"""`matsci-hpc jobs`: how everything stands that was submitted from this account."""

import datetime as dt
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from matsci_hpc.errors import MachineError
from matsci_hpc.launch.journal import Entry, login_hosts, read_entries
from matsci_hpc.launch.queue import ask
from matsci_hpc.launch.schedulers.base import QueueState
from matsci_hpc.launch.status import Standing, is_over, runs_of, standing, words_about

RECENT = dt.timedelta(days=1)


def show_jobs(*, everything: bool, as_json: bool) -> None:
    """Print the jobs that have not ended, and those of the last day; or all."""
    found, age_s = all_standings()
    if not everything:
        since = dt.datetime.now(dt.UTC) - RECENT
        found = [each for each in found if each.phase != "ended" or dt.datetime.fromisoformat(each.entry.time) > since]
    if as_json:
        for each in found:
            print(json.dumps(_as_record(each)))
        return
    if not found:
        print("no jobs" if everything else "no jobs of the last day; older ones: matsci-hpc jobs --all")
        return
    print("\n".join(_table(found)))
    if age_s >= 1:
        print(f"as the scheduler said {age_s:.0f} s ago")


def all_standings() -> tuple[list[Standing], float]:
    """Every job of the journal, the oldest first, and the age of the scheduler's answer in seconds."""
    runs = [run for entry in read_entries() for run in runs_of(entry)]
    told = list(zip(runs, words_about(runs), strict=True))
    here = login_hosts()
    asked: dict[str, list[str]] = {}
    for each, said in told:
        if each.cluster == here:
            ids = asked.setdefault(each.scheduler, [])
            if not is_over(said):
                ids.append(said.job_id if said is not None else each.job_id)
    queues: dict[str, dict[str, QueueState]] = {}
    age_s = 0.0
    for scheduler, ids in asked.items():
        if not ids:
            queues[scheduler] = {}
            continue
        try:
            answer = ask(scheduler, ids)
        except MachineError as error:
            print(f"matsci-hpc: warning: {error}", file=sys.stderr)
            continue
        queues[scheduler], age_s = answer.states, max(age_s, answer.age_s)
    newest = {each.status: each.job_id for each in runs}
    return [
        standing(each, said, queues.get(each.scheduler) if each.cluster == here else None, newest[each.status])
        for each, said in told
    ], age_s


def _as_record(each: Standing) -> dict[str, object]:
    entry = each.entry
    keys = ("name", "verb", "scheduler", "cluster", "time", "output", "log", "nodes", "ranks", "steps", "after")
    found = {"job": each.job_id, "phase": each.phase, "state": each.text, "life": each.life, "step": each.step}
    return found | {key: getattr(entry, key) for key in keys}


def _table(found: Sequence[Standing]) -> Iterator[str]:
    head = ("job", "what", "state", "done", "nodes", "where")
    rows = [head, *(_row(each) for each in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])


def _row(each: Standing) -> tuple[str, ...]:
    entry = each.entry
    life = f", life {each.life}" if each.life is not None and each.life > 1 and each.phase != "ended" else ""
    elsewhere = "" if entry.cluster == login_hosts() else f" (ask on {entry.cluster})"
    return each.job_id, entry.verb, f"{each.text}{life}{elsewhere}", _done(each), str(entry.nodes), _near(entry)


def _done(each: Standing) -> str:
    step = each.step
    if step is None:
        return ""
    if each.entry.verb == "prep":
        return f"{step} shard{'' if step == 1 else 's'}"
    return f"{step:,}/{each.entry.steps:,} steps" if each.entry.steps else f"{step:,} steps"


def _near(entry: Entry) -> str:
    """The run directory, relative to here if it lies below."""
    path = Path(entry.output)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
