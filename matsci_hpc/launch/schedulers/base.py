"""What every scheduler can be asked for, whichever it is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.model import Site

Phase = Literal["waiting", "running", "ended"]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_PLAIN = re.compile(r"[A-Za-z0-9_./+:@,=-]*")


@dataclass(frozen=True, slots=True)
class QueueState:
    """How a scheduler sees one job.

    Attributes:
        phase: whether it waits, runs or has ended.
        word: the scheduler's own word for its state, such as PENDING.
        reason: why it waits, or why it ended, as far as the scheduler tells and the state does not.
        time_s: seconds that it has run in this life, if told.
    """

    phase: Phase
    word: str
    reason: str | None = None
    time_s: int | None = None


class Scheduler(Protocol):
    """Turns a job into a script and commands, and answers into states; pure functions, nothing is run.

    Attributes:
        name: as in a site file.
        suffix: of the script's file name.
        template: of the script, below job_templates.
        launcher: words that start ranks unless the site says otherwise; may hold {placeholders}.
        keeps_id: a job that goes on in another life keeps its number. Otherwise it submits a successor, and its script
            says which in the status file.
        has_arrays: several runs can be one job.
        reads_stdin: the submit command takes the script as its standard input, not as an argument.
        forgotten: by what a complaint is known, of its query and cancel commands, that is only about a job that has
            ended.
    """

    name: str
    suffix: str
    template: str
    launcher: str
    keeps_id: bool
    has_arrays: bool
    reads_stdin: bool
    forgotten: tuple[str, ...]

    def directives(self, job: Job, site: Site) -> list[str]:
        """Lines of the script that the scheduler reads, `#SBATCH --nodes=2` and the like.

        Raises:
            UserInputError: A name that no such line can hold.
        """
        ...

    def submit_command(self, script: Path, after: Sequence[str]) -> list[str]:
        """The command that submits a script, to start when all jobs of `after` have succeeded."""
        ...

    def job_id(self, answer: str) -> str:
        """The number of the new job in the answer to `submit_command`.

        Raises:
            ValueError: There is none.
        """
        ...

    def log(self, job: Job, job_id: str) -> Path:
        """Where the output of a job goes."""
        ...

    def query_command(self, job_ids: Sequence[str]) -> list[str]:
        """One command that asks for all of these jobs."""
        ...

    def states(self, answer: str) -> Mapping[str, QueueState]:
        """State by job number in the answer to `query_command`; jobs that it does not know any more are absent."""
        ...

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """One command that ends all of these jobs."""
        ...


def is_about_ended_jobs(scheduler: Scheduler, complaint: str) -> bool:
    """Whether a command of a scheduler has complained of nothing but jobs that have ended."""
    lines = complaint.strip().splitlines()
    return bool(lines) and all(any(words in line for words in scheduler.forgotten) for line in lines)


def checked_text(value: str, mark: str) -> str:
    """A value for a directive line.

    Raises:
        UserInputError: A newline would end the directive and start a line of shell, and no scheduler agrees with
            another on backslashes.
    """
    if "\\" in value or _UNPRINTABLE.search(value):
        raise UserInputError(
            f"{value!r} has a line break, control character or backslash, which {mark} lines cannot hold"
        )
    return value


def is_plain(value: str) -> bool:
    """Whether a value means the same with and without quotes, to every scheduler."""
    return _PLAIN.fullmatch(value) is not None


def plain_value(value: str, mark: str) -> str:
    """A value for a directive line of a scheduler whose quoting is not to be relied on.

    Raises:
        UserInputError: It would need quotes.
    """
    if not is_plain(value):
        raise UserInputError(
            f"{value!r} has more than letters, digits and _./+:@,=- in it, which {mark} lines cannot hold"
        )
    return value


def plain_name(name: str, length: int = 64) -> str:
    """A job name of letters, digits and `_.-` only, for schedulers that take no others."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-")[:length]
    return plain or "matsci"
