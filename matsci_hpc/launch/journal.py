"""What was submitted from this account: one line per job, by which `jobs` and `cancel` find them again."""

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matsci_hpc.telemetry.provenance import now


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A submitted job.

    Attributes:
        job_id: number that the scheduler gave.
        scheduler: its name.
        cluster: where it was submitted, as `login_hosts` says.
        via: `sbatch` (a script of ours) or `submitit`.
        time: of the submission, UTC.
        name, verb, output, nodes, ranks, steps: of the job.
        outputs: run directories of an array, in the order of its numbers.
        status: where the script says how it stands.
        log: its output.
        after: numbers of the jobs that it waits for.
    """

    job_id: str
    scheduler: str
    cluster: str
    via: str
    time: str
    name: str
    verb: str
    output: str
    outputs: tuple[str, ...] = ()
    status: str
    log: str
    nodes: int
    ranks: int
    steps: int | None = None
    after: tuple[str, ...] = ()


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the journal: $XDG_STATE_HOME/matsci-hpc, by default below ~/.local/state."""
    above = environ.get("XDG_STATE_HOME")
    return (Path(above) if above else Path.home() / ".local/state") / "matsci-hpc"


def login_hosts() -> str:
    """The name of this host without digits: login1 and login2 lead to the same scheduler."""
    return re.sub(r"\d+", "", socket.gethostname().partition(".")[0])


def new_entry(**values: Any) -> Entry:
    """An entry of now and here."""
    return Entry(time=now(), cluster=login_hosts(), **values)


def write_entry(entry: Entry) -> None:
    """Add a line to the journal. One write in append mode: lines of two commands do not mix.

    Raises:
        OSError: It cannot be written.
    """
    path = state_folder() / "jobs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(entry), ensure_ascii=True) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_entries() -> list[Entry]:
    """All entries, the oldest first; torn lines and those of another version are left out."""
    try:
        lines = (state_folder() / "jobs.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    return [entry for line in lines if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> Entry | None:
    known = {each.name for each in fields(Entry)}
    try:
        record = json.loads(line)
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        return Entry(**{key: value for key, value in values.items() if key in known})
    except (ValueError, TypeError, AttributeError):
        return None
