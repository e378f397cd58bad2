"""Job scripts, written beside the run and handed to the scheduler's own command."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from matsci_hpc.errors import MachineError
from matsci_hpc.launch.job import Job, status_file
from matsci_hpc.launch.schedulers.base import Scheduler
from matsci_hpc.launch.script import render
from matsci_hpc.launch.sites.model import Site

_OF_A_JOB = re.compile(r"(SLURM|SBATCH|PBS|LSB|FLUX)_")
_OF_THE_CLUSTER = {"SLURM_CONF", "PBS_SERVER", "PBS_CONF_FILE", "FLUX_URI", "LSF_ENVDIR"}
_OF_THE_USER = {"SBATCH_ACCOUNT", "SBATCH_RESERVATION"}
"""What people set once for all of their jobs. Slurm lets it win over the script, as for scripts of their own."""


class ScriptDesk:
    """Hands scripts to one scheduler.

    Args:
        scheduler: whose scripts and commands.
    """

    via = "script"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.scheduler = scheduler.name
        self.has_arrays = scheduler.has_arrays

    def preview(self, job: Job, site: Site, after: Sequence[str]) -> str:
        """The script, with the command that would submit it as its last line."""
        command = one_line(self._command_line(job, after))
        return f"{render(job, site, self._scheduler)}\n# submitted by: {command}\n"

    def submit(self, job: Job, site: Site, after: Sequence[str]) -> str:
        """Write the script, hand it in and give the number of the job.

        Raises:
            UserInputError: The job cannot be written as a script.
            MachineError: The script cannot be written, or the scheduler is missing or refuses.
        """
        script = render(job, site, self._scheduler)
        path = self._path(job)
        write_script(path, script, job)
        command = self._scheduler.submit_command(path, after)
        by_hand = f"submit from a login node of the cluster, or run {self._command_line(job, after)} there"
        answer = run_command(command, by_hand, stdin=path if self._scheduler.reads_stdin else None)
        if answer.returncode != 0:
            raise MachineError(f"{command[0]} refused {path}: {answer.stderr.strip() or answer.stdout.strip()}")
        try:
            return self._scheduler.job_id(answer.stdout)
        except ValueError:
            raise MachineError(
                f"{command[0]} gave no job number for {path}: {answer.stdout.strip()} {answer.stderr.strip()}"
            ) from None

    def log(self, job: Job, job_id: str) -> Path:
        """Where its output goes."""
        return self._scheduler.log(job, job_id)

    def _command_line(self, job: Job, after: Sequence[str]) -> str:
        """The command that submits, as one would type it."""
        command = shlex.join(self._scheduler.submit_command(self._path(job), after))
        return f"{command} < {shlex.quote(str(self._path(job)))}" if self._scheduler.reads_stdin else command

    def _path(self, job: Job) -> Path:
        return job.stem.with_name(job.stem.name + self._scheduler.suffix)


def write_script(path: Path, script: str, job: Job) -> None:
    """Put a script where the job's log will be.

    Raises:
        MachineError: It cannot be written.
    """
    prepare_folder(job)
    try:
        path.write_text(script, encoding="utf-8", errors="surrogateescape")
        path.chmod(0o755)
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error}") from error


def prepare_folder(job: Job) -> None:
    """Make the folder of script and log. What an earlier life asked of a run is not asked of this one.

    Raises:
        MachineError: It cannot be written to.
    """
    try:
        # A scheduler opens the log before the script runs, and a job without the folder fails without a word.
        job.folder.mkdir(parents=True, exist_ok=True)
        for output in [each.output for each in job.elements] or [job.output]:
            if job.verb == "train":
                (output / "STOP").unlink(missing_ok=True)
            status_file(job.verb, output).unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"cannot write to {job.folder}: {error}") from error


def run_command(words: Sequence[str], instead: str, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of a scheduler.

    Args:
        words: the command.
        instead: what to do where it is missing.
        stdin: file that it reads as its standard input.

    Raises:
        MachineError: It is missing or does not answer.
    """
    with (stdin or Path(os.devnull)).open("rb") as source:
        try:
            return subprocess.run(  # noqa: S603 - fixed words, numbers of jobs and paths of ours
                list(words),
                stdin=source,
                capture_output=True,
                text=True,
                errors="replace",  # a site's own messages come in any encoding
                check=False,
                env=outside_of_jobs(),
                timeout=120,
            )
        except FileNotFoundError:
            raise MachineError(
                f"there is no {words[0]} on PATH: {instead}; the site `local` runs on this machine"
            ) from None
        except subprocess.TimeoutExpired:
            raise MachineError(f"{words[0]} gave no answer within 120 s; try again when the scheduler does") from None


def outside_of_jobs() -> dict[str, str]:
    """The environment without that of a job around us, whose node counts and memory would be passed on."""
    leave_out = names_of_a_job()
    return {name: value for name, value in os.environ.items() if name not in leave_out}


def names_of_a_job() -> list[str]:
    """The variables that a job around us has set."""
    return [name for name in os.environ if _OF_A_JOB.match(name) and name not in _OF_THE_CLUSTER | _OF_THE_USER]


def one_line(command: str) -> str:
    """A command for a line of comment, which a line break would end."""
    return command.replace("\n", "?")
