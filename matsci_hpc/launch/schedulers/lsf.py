"""IBM Spectrum LSF: bsub, bjobs, bkill.

The command reference: https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=reference-bsub
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.schedulers.base import Phase, QueueState, checked_text, is_plain, plain_name, plain_value
from matsci_hpc.launch.sites.model import Site, limit_in_seconds

MARK = "#BSUB"
REQUEUE_CODE = 99
"""Exit code of a life after which LSF is to start the job again."""
_WAITING = {"PEND", "PSUSP", "PROV", "WAIT", "FWD_PEND"}
_RUNNING = {"RUN", "SSUSP", "USUSP", "UNKWN"}


class Lsf:
    """Batch scripts of LSF."""

    name = "lsf"
    suffix = ".lsf"
    template = "job_templates/lsf/job.lsf.j2"
    # Open MPI with LSF support, MPICH and Intel MPI take the nodes from LSF.
    launcher = "mpirun -n {ranks}"
    keeps_id = True
    # LSF counts the elements of an array from 1 and names them JOB[INDEX]; single jobs do as well.
    has_arrays = False
    # bsub reads #BSUB lines of a script only if it is the standard input, unless LSB_BSUB_PARSE_SCRIPT is set:
    # https://www.ibm.com/docs/SSWRJV_10.1.0/lsf_command_ref/bsub.zz1argument.job_script.1.html
    reads_stdin = True
    forgotten: tuple[str, ...] = ()
    requeue_code = REQUEUE_CODE

    def directives(self, job: Job, site: Site) -> list[str]:
        """The #BSUB lines."""
        log = f"{job.folder}/lsf-%J.out"
        options = [
            f"-J {plain_name(job.name)}",
            *_given("-P", site.account),
            *_given("-q", job.components[0].partition),
            *([f"-W {_minutes(job.time_limit)}"] if job.time_limit else []),
            *(_whole_nodes(job.components[0]) if _has_jsrun(site) else _size(job.components[0], site)),
            # Added to the log that the script writes itself: LSF throws away what a life that is requeued has said,
            # see REQUEUE_EXIT_VALUES. A path that needs quotes is left out, and LSF sends a mail instead.
            *([f"-o {log}"] if is_plain(str(job.folder)) else []),
            # After the loss of a node LSF runs the job again, under the same number.
            "-r",
            # https://www.ibm.com/docs/en/SSWRJV_10.1.0/lsf_command_ref/bsub.__q.1.html
            *([f'-Q "{REQUEUE_CODE}"'] if job.verb != "report" else []),
            *(checked_text(option, MARK) for option in job.components[0].options),
        ]
        return [f"{MARK} {each}" for each in options]

    def submit_command(self, script: Path, after: Sequence[str]) -> list[str]:
        """Bsub, which reads the script; `-ti` ends a job whose predecessors have failed instead of letting it wait.

        https://www.ibm.com/docs/en/SSWRJV_10.1.0/lsf_command_ref/bsub.ti.1.html
        """
        del script
        return ["bsub", *(["-w", " && ".join(f"done({each})" for each in after), "-ti"] if after else [])]

    def job_id(self, answer: str) -> str:
        """From `Job <123> is submitted to queue <normal>.`."""
        found = re.search(r"Job <(\d+)>", answer)
        if found is None:
            raise ValueError(answer)
        return found[1]

    def log(self, job: Job, job_id: str) -> Path:
        """One log over all lives."""
        return job.folder / f"lsf-{job_id}.out"

    def query_command(self, job_ids: Sequence[str]) -> list[str]:
        """All jobs of this user that LSF still remembers: an unknown number would be an error."""
        del job_ids
        return ["bjobs", "-a", "-noheader", "-o", "jobid stat run_time pend_reason delimiter='|'"]

    def states(self, answer: str) -> dict[str, QueueState]:
        """State by number."""
        found: dict[str, QueueState] = {}
        for line in answer.splitlines():
            fields = line.strip().split("|", 3)
            if len(fields) != 4 or not fields[0].isdecimal():
                continue
            job_id, word, elapsed, reason = fields
            phase = _phase(word)
            told = reason.strip() if phase == "waiting" and reason.strip() not in {"", "-"} else None
            seconds = re.match(r"\d+", elapsed)
            word = "RUNNING" if word == "RUN" else word
            found[job_id] = QueueState(phase, word, told, int(seconds[0]) if seconds else None)
        return found

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Bkill: the script gets SIGINT and SIGTERM first."""
        return ["bkill", *job_ids]


def _given(option: str, value: str | None) -> list[str]:
    return [] if value is None else [f"{option} {plain_value(value, MARK)}"]


def _has_jsrun(site: Site) -> bool:
    """Whether this is a machine whose nodes are handed out whole and jsrun places the ranks."""
    return site.launcher is not None and shlex.split(site.launcher)[0].rpartition("/")[2] == "jsrun"


def _whole_nodes(component: Component) -> list[str]:
    return [f"-nnodes {component.nodes}"]


def _size(component: Component, site: Site) -> list[str]:
    """A task is a rank. Memory and GPUs are asked for by node (`/host`, since 10.1.0.9).

    https://www.ibm.com/docs/en/SSWRJV_10.1.0/lsf_release_notes/lsf_relnotes_resourcemanagement10.1.0.9.html
    """
    needs = [f"span[ptile={component.ranks_per_node}]"]
    if component.cpus_per_rank > 1:
        needs.append(f"affinity[core({component.cpus_per_rank})]")
    if component.memory not in {None, "0"}:
        memory = f"{component.memory}M" if str(component.memory).isdecimal() else component.memory
        needs.append(f"rusage[mem={memory}/host]")
    gpus = component.ranks_per_node * component.gpus_per_rank if site.gpu_request != "none" else 0
    return [f"-n {component.ranks}", f'-R "{" ".join(needs)}"', *([f'-gpu "num={gpus}/host"'] if gpus else [])]


def _minutes(time_limit: str) -> str:
    """HOURS:MINUTES, rounded up."""
    minutes = -(-limit_in_seconds(time_limit) // 60)
    return f"{minutes // 60}:{minutes % 60:02d}"


def _phase(word: str) -> Phase:
    if word in _WAITING:
        return "waiting"
    return "running" if word in _RUNNING else "ended"
