"""PBS Professional and OpenPBS: qsub, qstat, qdel.

The manual pages of the commands: https://github.com/openpbs/openpbs/tree/master/doc/man1
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matsci_hpc.launch.job import Component, Job, fill
from matsci_hpc.launch.schedulers.base import Phase, QueueState, checked_text, is_plain, plain_name, plain_value
from matsci_hpc.launch.sites.model import Site, limit_in_seconds

MARK = "#PBS"
# Between bars; a backslash stands before a bar, or a backslash, of the value itself.
_FIELD = re.compile(r"(?:[^|\\]|\\.|\\$)+")
_JOB_ID = re.compile(r"\d+(\[\d*\])?(\.[A-Za-z0-9._-]+)?")
# The letters of job_state; a job that is not in this table is still known to PBS, so it has not ended.
_STATES: dict[str, tuple[Phase, str]] = {
    "Q": ("waiting", "QUEUED"),
    "H": ("waiting", "HELD"),
    "W": ("waiting", "WAITING"),
    "T": ("waiting", "MOVING"),
    "M": ("waiting", "MOVED"),
    "R": ("running", "RUNNING"),
    "B": ("running", "RUNNING"),
    "E": ("running", "EXITING"),
    "S": ("running", "SUSPENDED"),
    "U": ("running", "SUSPENDED"),
    "F": ("ended", "FINISHED"),
    "X": ("ended", "FINISHED"),
}


class Pbs:
    """Batch scripts of PBS. A job that goes on submits its successor: qrerun is for operators."""

    name = "pbs"
    suffix = ".pbs"
    template = "job_templates/pbs/job.pbs.j2"
    # $PBS_NODEFILE names a node once for each of its ranks, and Open MPI with PBS support (tm), MPICH and Intel MPI
    # read it.
    launcher = "mpiexec -n {ranks}"
    keeps_id = False
    # An element of an array cannot submit a successor that is an element of the same array.
    has_arrays = False
    reads_stdin = False
    forgotten: tuple[str, ...] = ("Unknown Job Id", "Job has finished")

    def directives(self, job: Job, site: Site) -> list[str]:
        """The #PBS lines."""
        early = f"{job.stem}.pbs.out"
        options = [
            f"-N {plain_name(job.name)}",
            # Otherwise the user's login shell reads the script.
            "-S /bin/bash",
            *_given("-A", site.account),
            *_given("-q", job.components[0].partition),
            *_size(job.components[0], site),
            *([f"-l walltime={_clock(job.time_limit)}"] if job.time_limit else []),
            "-j oe",
            # Only what is said before the script opens its own log; a path that needs quotes is left to PBS, which
            # then writes NAME.oNUMBER where the job was submitted.
            *([f"-o {early}"] if is_plain(early) and ":" not in early else []),
            # After the loss of a node PBS runs the job again.
            "-r y",
            *(checked_text(fill(option, job.components[0]), MARK) for option in job.components[0].options),
        ]
        return [f"{MARK} {each}" for each in options]

    def submit_command(self, script: Path, after: Sequence[str]) -> list[str]:
        """Qsub; PBS itself deletes a job whose predecessors have failed."""
        return ["qsub", *(["-W", f"depend=afterok:{':'.join(after)}"] if after else []), str(script)]

    def job_id(self, answer: str) -> str:
        """The last line is the number, with the server's name; a site's hook may have printed others before."""
        last = answer.strip().rpartition("\n")[2].strip()
        if not _JOB_ID.fullmatch(last):
            raise ValueError(answer)
        return last

    def log(self, job: Job, job_id: str) -> Path:
        """One log over all lives, by the number of the first."""
        return job.folder / f"pbs-{job_id}.out"

    def query_command(self, job_ids: Sequence[str]) -> list[str]:
        """These jobs only: without numbers it would be everybody's. Unknown ones are skipped, with an exit code.

        Not as JSON: of several numbers OpenPBS 23 then answers the first one only.
        """
        return ["qstat", "-f", "-F", "dsv", *job_ids]

    def states(self, answer: str) -> dict[str, QueueState]:
        """State by the full number."""
        return dict(_jobs(answer))

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Qdel: the script gets SIGTERM, so it submits no successor."""
        return ["qdel", *job_ids]


def _given(option: str, value: str | None) -> list[str]:
    return [] if value is None else [f"{option} {plain_value(value, MARK)}"]


def _size(component: Component, site: Site) -> list[str]:
    """Chunks of one node each; without `place` several chunks could share a node.

    A site that counts otherwise has `-l select={nodes}:...` or `-l place=...` among its options.
    """
    told = [option for option in component.options if option.startswith("-l")]
    ranks, cpus, gpus = component.ranks_per_node, component.cpus_per_rank, component.gpus_per_rank
    chunk = [f"{component.nodes}", f"ncpus={ranks * cpus}", f"mpiprocs={ranks}", f"ompthreads={cpus}"]
    chunk += [f"ngpus={ranks * gpus}"] if gpus and site.gpu_request != "none" else []
    chunk += [f"mem={_memory(component.memory)}"] if component.memory not in {None, "0"} else []
    place = [] if any("place=" in each for each in told) else ["-l place=scatter"]
    select = [] if any("select=" in each for each in told) else [f"-l select={':'.join(chunk)}"]
    return [*select, *place]


def _memory(memory: str | None) -> str:
    """120G as PBS writes it; a bare number counts MB."""
    text = str(memory)
    return f"{text}mb" if text.isdecimal() else f"{text[:-1]}{text[-1].lower()}b"


def _clock(time_limit: str) -> str:
    """HH:MM:SS, with as many hours as it takes: PBS knows no days."""
    minutes, seconds = divmod(limit_in_seconds(time_limit), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"


def _jobs(answer: str) -> Iterator[tuple[str, QueueState]]:
    for job_id, fields in _records(answer):
        letter = fields.get("job_state", "")
        phase, word = _STATES.get(letter, ("running", letter or "unknown"))
        reason = fields.get("comment") or ("for another job" if word == "HELD" and "depend" in fields else None)
        elapsed = _seconds(fields.get("resources_used.walltime", ""))
        yield job_id, QueueState(phase, word, reason if phase == "waiting" else None, elapsed)


def _records(answer: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Attributes by job, of which each is a line: Job Id: 7.srv|Job_Name=demo|job_state=R|..."""
    for line in answer.splitlines():
        first, *pairs = (re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(line)) if line else [""]
        label, _, job_id = first.partition(": ")
        if label == "Job Id" and job_id:
            yield job_id, {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def _seconds(elapsed: str) -> int | None:
    """Seconds of HH:MM:SS."""
    parts = elapsed.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    return (int(parts[0]) * 60 + int(parts[1])) * 60 + int(parts[2])
