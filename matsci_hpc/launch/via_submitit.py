"""Jobs through submitit: its pickle and its Job, around the job script that is also used without it.

Lives, progress, dependencies and everything that a site asks for are in that script once, for both. What it starts on
each rank is `submitit_rank`, which runs the pickled `Task`.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from submitit.core.core import PicklingExecutor
from submitit.core.utils import FailedJobError

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.script import is_srun, launcher_words, render
from matsci_hpc.launch.script_desk import names_of_a_job, one_line, prepare_folder
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.submitit_job import SLURM, SubmititJob
from matsci_hpc.launch.submitit_task import Task

PLACEHOLDERS = ("%j", "%t", "%A", "%a")
"""Submitit puts numbers in their place wherever they stand in a path."""
INSTEAD = "leave submitit out, the job script does that"


class SubmititDesk:
    """Hands jobs to submitit."""

    scheduler = "slurm"
    via = "submitit"
    has_arrays = False

    def preview(self, job: Job, site: Site, after: Sequence[str]) -> str:
        """The batch file, and as comments behind it the command that submits it and what is pickled."""
        command = " ".join(SLURM.submit_command(folder_of(job) / "JOB_submission.sh", after))
        task = json.dumps(asdict(task_of(job)))
        return f"{batch_file(job, site)}\n# submitted by: {one_line(command)}\n# pickled: {task}\n"

    def submit(self, job: Job, site: Site, after: Sequence[str]) -> str:
        """Submit a job and give its number.

        Raises:
            UserInputError: It is none that submitit can hold.
            MachineError: Slurm is missing or refuses, or the folder cannot be written.
        """
        return self.hand_in(job, site, after).job_id

    def hand_in(self, job: Job, site: Site, after: Sequence[str]) -> SubmititJob:
        """The same, and give submitit's Job."""
        text = batch_file(job, site)
        if shutil.which("sbatch") is None:
            raise MachineError(
                "there is no sbatch on PATH: submit from a login node of the cluster; the site `local` runs on this "
                "machine"
            )
        prepare_folder(job)
        folder = folder_of(job)
        _make_private(folder)
        before = set(folder.iterdir())
        try:
            handed = cast(SubmititJob, _Executor(folder, job, site, text, after).submit(task_of(job)))
        except FailedJobError as error:
            for path in set(folder.iterdir()) - before:
                path.unlink()
            raise MachineError(f"sbatch refused {job.name}: {error}") from None
        except OSError as error:
            raise MachineError(f"cannot write to {folder}: {error}") from error
        handed.description = job
        return handed

    def log(self, job: Job, job_id: str) -> Path:
        """Where its output goes."""
        return SLURM.log(job, job_id)


def folder_of(job: Job) -> Path:
    """Where submitit keeps batch file and pickles of a job."""
    return job.stem.with_name(f"{job.stem.name}.submitit")


def task_of(job: Job) -> Task:
    """What is pickled."""
    return Task(arguments=job.arguments, output=str(job.output))


def batch_file(job: Job, site: Site) -> str:
    """The whole batch file.

    Raises:
        UserInputError: A name that no directive can hold, or a job that submitit has no form for.
    """
    if job.elements:
        raise UserInputError(f"{job.config}: submitit is given one run at a time; {INSTEAD} for an array")
    if len(job.components) > 1:
        # The ranks of the second component see another job number, and would look for another pickle.
        raise UserInputError(f"{job.config}: submitit cannot mix kinds of nodes in a job; {INSTEAD}")
    if job.verb != "report" and not is_srun(words := launcher_words(site, SLURM, job.components[0], job)):
        raise UserInputError(f"submitit tells ranks apart by what srun says, and this site has {words[0]}; {INSTEAD}")
    folder = str(folder_of(job))
    if any(each in folder for each in PLACEHOLDERS):
        raise UserInputError(f"{folder}: submitit takes {', '.join(PLACEHOLDERS)} in a path for numbers; rename it")
    text = render(
        job,
        site,
        SLURM,
        python_words=("-m", "matsci_hpc.launch.submitit_rank", folder),
        environment={"SUBMITIT_EXECUTOR": "slurm"},
    )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserInputError(
            f"{job.output}: submitit writes names in UTF-8 only, and one here is not; rename it"
        ) from None
    return text


def _make_private(folder: Path) -> None:
    """A folder that nobody else can put a pickle in: loading one runs what its writer wants.

    Raises:
        MachineError: It cannot be made, or is somebody else's.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise MachineError(f"cannot make {folder} a folder of your own: {error}") from error


class _Executor(PicklingExecutor):
    """Submitit's part: pickle, batch file and Job. The text of the file and the command are ours.

    Its own ones give every job five minutes unless told, a wckey that is refused where wckeys are enforced, and ranks
    no cores. They quote directives as for a shell, and sbatch drops a backslash between single quotes, too.
    """

    job_class = SubmititJob

    def __init__(self, folder: Path, job: Job, site: Site, text: str, after: Sequence[str]) -> None:
        # It counts a job of ten minutes or less as timed out whatever has happened; the script counts by itself.
        super().__init__(folder, max_num_timeout=site.max_lives)
        self._job = job
        self._text = text
        self._after = after

    def _num_tasks(self) -> int:
        return self._job.ranks

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        del command, uid
        return self._text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        unset = [word for name in names_of_a_job() for word in ("-u", name)]
        return ["env", *unset, *SLURM.submit_command(submission_file_path, self._after)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        answer = string if isinstance(string, str) else string.decode(errors="replace")
        try:
            return SLURM.job_id(answer)
        except ValueError:
            raise FailedJobError(f"no job number in its answer {answer.strip()!r}") from None
