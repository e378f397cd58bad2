"""Submitit's Job, told how it stands by squeue and by the job script instead of by sacct.

Accounting is not set up on every cluster. Without it submitit 1.5 never notices that a job was cancelled or killed, and
`result()` waits for ever.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, JobPaths, UncompletedJobError, pickle_load
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from matsci_hpc.launch.job import Job
from matsci_hpc.launch.schedulers.slurm import Slurm

FORGOTTEN = "FORGOTTEN"
"""State of a job that the controller does not know any more: it ended some minutes ago, or was never there."""
TAIL_LINES = 30
"""Of the log, in an error message."""
SLURM = Slurm()


class QueueWatcher(SlurmInfoWatcher):
    """Asks squeue for all jobs of this user at once, every 2 s at first and later every 30 s."""

    def __init__(self) -> None:
        super().__init__(delay_s=30)

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Whether a job has ended. Submitit itself takes CONFIGURING or SUSPENDED for an end.

        Args:
            job_id: number of the job.
            mode: `force` asks now, `standard` from time to time, `cache` not.
        """
        return self.get_info(job_id, mode=mode).get("Phase") == "ended"

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """State and phase by job, in squeue's answer."""
        states = SLURM.states(string if isinstance(string, str) else string.decode(errors="replace"))
        forgotten = {"State": FORGOTTEN, "Phase": "ended"}
        return {
            job_id: {"State": states[job_id].word, "Phase": states[job_id].phase} if job_id in states else forgotten
            for job_id in self._registered - self._finished
        }

    def _make_command(self) -> list[str] | None:
        return SLURM.query_command([]) if self._registered - self._finished else None


class OneLogPaths(JobPaths):  # type: ignore[misc, unused-ignore]
    """Paths of a job whose ranks all write to one log, instead of two files for each of them."""

    @property
    def stdout(self) -> Path:
        """The log of all ranks and all lives."""
        return self.folder.parent / f"slurm-{self.job_id}.out"

    @property
    def stderr(self) -> Path:
        """The same."""
        return self.stdout

    @property
    def status(self) -> Path:
        """One line by the job script that says how the job stands."""
        return self.folder.with_suffix(".status")


class SubmititJob(SlurmJob[Any]):
    """A submitted job.

    Args:
        folder: with its pickles.
        job_id: its number.
        tasks: its ranks.

    Attributes:
        description: what was submitted; None if it was found again by folder and number.
    """

    watcher = QueueWatcher()
    description: Job | None = None

    def __init__(self, folder: Path | str, job_id: str, tasks: Sequence[int] = (0,)) -> None:
        super().__init__(folder, job_id, tasks)
        self._pickles = Path(folder)
        self._paths: OneLogPaths = OneLogPaths(folder, job_id=job_id, task_id=self.task_id)

    def stderr(self) -> None:
        """Nothing: all of it is in `stdout`."""

    def stdout(self) -> str | None:
        """The log of all ranks and all lives, or None before there is one."""
        try:
            return self._paths.stdout.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def result(self) -> Any:
        """Wait for the end of the last life, and give what rank 0 returned.

        Raises:
            FailedJobError: A rank failed; the message has its traceback.
            UncompletedJobError: A rank has no result: the job was cancelled, killed, or given up by its script.
        """
        return self.results()[0]

    def results(self) -> list[Any]:
        """The same for all ranks.

        Raises:
            FailedJobError: A rank failed.
            UncompletedJobError: A rank has no result.
        """
        self.wait()
        # Submitit waits 15 s for each rank without a result, one after another; here all of them have 15 s.
        end = time.monotonic() + self._results_timeout_s
        while len(found := self._outcomes()) < len(self._tasks):
            if time.monotonic() > end:
                raise self._without_result()
            time.sleep(0.5)  # a shared file system may show a file late
        return [found[rank] for rank in self._tasks]

    def exception(self) -> UncompletedJobError | None:
        """Wait for the end of the last life, and give what `result` would raise."""
        try:
            self.results()
        except UncompletedJobError as error:
            return error
        return None

    def _outcomes(self) -> dict[int, Any]:
        """What the ranks returned, as far as it is there."""
        returned = {}
        for rank in self._tasks:
            path = self._result_of(rank)
            if path.exists():
                outcome, returned[rank] = pickle_load(path)
                if outcome == "error":
                    text = f"job {self.job_id}: rank {rank} failed\n{returned[rank]}\nlog: {self._paths.stdout}"
                    raise FailedJobError(text)
        return returned

    def _without_result(self) -> UncompletedJobError:
        lines = [f"job {self.job_id} has ended without a result (state: {self.state})"]
        try:
            said = self._paths.status.read_text(encoding="utf-8").split(" ", 2)
        except OSError:
            said = []
        if len(said) == 3 and said[0] == self.job_id:
            lines.append(f"its script says: {said[2].strip()}")
        log = self.stdout()
        lines += [f"the end of {self._paths.stdout}:", *log.splitlines()[-TAIL_LINES:]] if log else ["there is no log"]
        return UncompletedJobError("\n".join(lines))

    def _result_of(self, rank: int) -> Path:
        return OneLogPaths(self._pickles, job_id=self.job_id, task_id=rank).result_pickle
