"""Slurm: sbatch, srun, squeue."""

import re
from collections.abc import Sequence
from pathlib import Path

from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.schedulers.base import Phase, QueueState, checked_text
from matsci_hpc.launch.sites.model import Site

MARK = "#SBATCH"
_PLAIN = re.compile(r"[A-Za-z0-9_./%+:@,=\[\]-]*")
_WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
# JobLaunchFailure says something: the folder of the log is gone, or a prolog failed, and there is no log to read.
_SAYS_NOTHING = {"", "None", "NonZeroExitCode"}
_RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "RESIZING"}


class Slurm:
    """Batch scripts of Slurm."""

    name = "slurm"
    suffix = ".sbatch"
    template = "job_templates/slurm/job.sbatch.j2"
    launcher = "srun"
    keeps_id = True
    has_arrays = True
    reads_stdin = False
    forgotten: tuple[str, ...] = ()

    def directives(self, job: Job, site: Site) -> list[str]:
        """The #SBATCH lines, in the order of the script.

        The components of a job of unequal nodes are set apart by `#SBATCH hetjob`.
        """
        first, *others = job.components
        lines = [f"{MARK} {each}" for each in _common(job, site) + _size(first, site)]
        for component in others:
            lines += [f"{MARK} hetjob", *(f"{MARK} {each}" for each in _size(component, site))]
        return lines

    def submit_command(self, script: Path, after: Sequence[str]) -> list[str]:
        """Sbatch; a job whose predecessors have failed is removed instead of waiting for ever."""
        wait = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
        return ["sbatch", "--parsable", *wait, str(script)]

    def job_id(self, answer: str) -> str:
        """`--parsable` answers `JOB` or `JOB;CLUSTER`."""
        number = answer.strip().partition(";")[0]
        if not number.isdecimal():
            raise ValueError(answer)
        return number

    def log(self, job: Job, job_id: str) -> Path:
        """One log over all lives; the runs of an array write one each."""
        return job.folder / f"slurm-{job_id}{'_*' if job.elements else ''}.out"

    def query_command(self, job_ids: Sequence[str]) -> list[str]:
        """All jobs of this user at once: with `--jobs`, one unknown number makes the whole answer an error."""
        del job_ids
        return ["squeue", "--me", "--states=all", "--array", "--noheader", "--format=%i|%T|%r|%M"]

    def states(self, answer: str) -> dict[str, QueueState]:
        """State by `JOB`, or by `JOB_INDEX` for a run of an array; a job of unequal nodes goes by its first part."""
        found: dict[str, QueueState] = {}
        for line in answer.splitlines():
            fields = line.strip().split("|")
            if len(fields) != 4:
                continue
            job_id, word, reason, elapsed = fields
            phase = _phase(word)
            tells = (phase == "waiting" or word == "FAILED") and reason not in _SAYS_NOTHING
            told = reason if tells else None
            found.setdefault(job_id.partition("+")[0], QueueState(phase, word, told, _seconds(elapsed)))
        return found

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Scancel: ranks get SIGTERM and, if KillWait lets them, save first."""
        return ["scancel", *job_ids]


def _common(job: Job, site: Site) -> list[str]:
    options: list[tuple[str, str | None]] = [
        ("job-name", job.name),
        ("account", site.account),
        ("qos", site.qos),
        ("time", job.time_limit),
        # `B:` signals the batch shell alone; otherwise every process of every rank would get it.
        ("signal", f"B:USR1@{site.signal_before_end_s}" if job.verb != "report" else None),
        ("array", f"0-{len(job.elements) - 1}" if job.elements else None),
        # A % in a path would begin a pattern, so it is doubled.
        ("output", f"{job.folder}".replace("%", "%%") + f"/slurm-{'%A_%a' if job.elements else '%j'}.out"),
    ]
    # One log over all lives.
    return [_directive(name, value) for name, value in options if value is not None] + [
        "--open-mode=append",
        "--requeue",
    ]


def _size(component: Component, site: Site) -> list[str]:
    """`--ntasks` alone would let Slurm spread the ranks unevenly, so nodes and ranks per node are both given."""
    gpus = component.ranks_per_node * component.gpus_per_rank or None
    options: list[tuple[str, str | int | None]] = [
        ("partition", component.partition),
        ("nodes", component.nodes),
        ("ntasks-per-node", component.ranks_per_node),
        ("cpus-per-task", component.counted_cpus_per_rank),
        ("gpus-per-node", gpus if site.gpu_request == "gpus-per-node" else None),
        ("gres", f"gpu:{gpus}" if gpus and site.gpu_request == "gres" else None),
        ("mem", component.memory),
    ]
    lines = [_directive(name, str(value)) for name, value in options if value is not None]
    for option in component.options:
        name, equals, value = option.partition("=")
        lines.append(_directive(name.removeprefix("--"), value) if equals else checked_text(option, MARK))
    return lines


def _directive(name: str, value: str) -> str:
    """`--name=value`, quoted in the way of sbatch, which is not that of a shell."""
    checked_text(value, MARK)
    if not _PLAIN.fullmatch(value):
        value = '"' + value.replace('"', '\\"') + '"'
    return f"--{name}={value}"


def _phase(word: str) -> Phase:
    if word in _WAITING:
        return "waiting"
    return "running" if word in _RUNNING else "ended"


def _seconds(elapsed: str) -> int | None:
    """Seconds of [D-][HH:]MM:SS."""
    days, _, clock = elapsed.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts) or not 1 < len(parts) <= 3:
        return None
    hours, minutes, seconds = ([0] * (3 - len(parts)) + [int(part) for part in parts])[-3:]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
