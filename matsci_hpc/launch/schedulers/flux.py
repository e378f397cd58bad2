"""Flux: flux batch, flux run, flux jobs.

The manual pages of the commands: https://flux-framework.readthedocs.io/projects/flux-core/en/latest/man1/
"""

from collections.abc import Sequence
from pathlib import Path

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.schedulers.base import Phase, QueueState, checked_text, is_plain, plain_name, plain_value
from matsci_hpc.launch.sites.model import Site, limit_in_seconds

MARK = "# flux:"
# https://flux-framework.readthedocs.io/projects/flux-rfc/en/latest/spec_19.html
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_WAITING = {"NEW", "DEPEND", "PRIORITY", "SCHED"}
_RUNNING = {"RUN", "CLEANUP"}


class Flux:
    """Batch scripts of Flux, each the initial program of an instance of its own."""

    name = "flux"
    suffix = ".flux"
    template = "job_templates/flux/job.flux.j2"
    # A dead rank must end the others at once.
    launcher = "flux run -o exit-on-error -N {nodes} -n {ranks} -c {cpus_per_rank} -g {gpus_per_rank}"
    keeps_id = False
    has_arrays = False
    reads_stdin = False
    forgotten: tuple[str, ...] = ()

    def directives(self, job: Job, site: Site) -> list[str]:
        """The flux lines.

        Raises:
            UserInputError: A value that would need quotes, or an amount of memory.
        """
        early = f"{job.stem}.flux.out"
        options = [
            f"--job-name={plain_name(job.name)}",
            *_given("--bank", site.account),
            *_given("--queue", job.components[0].partition),
            *_size(job.components[0]),
            *([f"--time-limit={limit_in_seconds(job.time_limit)}s"] if job.time_limit else []),
            # Only what is said before the script opens its own log; a path that needs quotes is left to Flux, which
            # then writes flux-NUMBER.out where the job was submitted.
            *([f"--output={early}"] if is_plain(early) else []),
            *(checked_text(option, MARK) for option in job.components[0].options),
        ]
        return [f"{MARK} {each}" for each in options]

    def submit_command(self, script: Path, after: Sequence[str]) -> list[str]:
        """Flux batch; Flux itself cancels a job whose predecessors have failed."""
        return ["flux", "batch", *(f"--dependency=afterok:{each}" for each in after), str(script)]

    def job_id(self, answer: str) -> str:
        """The number in decimal: Flux answers with ƒ and digits of base 58, which few terminals let one type."""
        word = answer.strip().rpartition("\n")[2].strip()
        if word.isdecimal():
            return word
        digits = word[1:]
        if word[:1] not in {"ƒ", "f"} or not digits or set(digits) - set(_BASE58):
            raise ValueError(answer)
        number = 0
        for digit in digits:
            number = number * 58 + _BASE58.index(digit)
        return str(number)

    def log(self, job: Job, job_id: str) -> Path:
        """One log over all lives, by the number of the first."""
        return job.folder / f"flux-{job_id}.out"

    def query_command(self, job_ids: Sequence[str]) -> list[str]:
        """All jobs of this user that Flux still remembers."""
        del job_ids
        return ["flux", "jobs", "-a", "--no-header", "--count=0", "--format={id.dec}|{status}|{runtime}"]

    def states(self, answer: str) -> dict[str, QueueState]:
        """State by decimal number."""
        found: dict[str, QueueState] = {}
        for line in answer.splitlines():
            fields = line.strip().split("|")
            if len(fields) != 3 or not fields[0].isdecimal():
                continue
            job_id, word, elapsed = fields
            phase = _phase(word)
            reason = "for another job" if word == "DEPEND" else None
            found[job_id] = QueueState(phase, "RUNNING" if word == "RUN" else word, reason, _seconds(elapsed))
        return found

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Flux cancel: the script gets SIGTERM, so it submits no successor."""
        return ["flux", "cancel", *job_ids]


def _given(option: str, value: str | None) -> list[str]:
    return [] if value is None else [f"{option}={plain_value(value, MARK)}"]


def _size(component: Component) -> list[str]:
    """A slot is a rank."""
    if component.memory not in {None, "0"}:
        raise UserInputError(f"memory {component.memory}: Flux hands out cores, GPUs and nodes only; leave it out")
    gpus = [f"--gpus-per-slot={component.gpus_per_rank}"] if component.gpus_per_rank else []
    return [
        f"--nodes={component.nodes}",
        f"--nslots={component.ranks}",
        f"--cores-per-slot={component.cpus_per_rank}",
        *gpus,
    ]


def _phase(word: str) -> Phase:
    if word in _WAITING:
        return "waiting"
    return "running" if word in _RUNNING else "ended"


def _seconds(elapsed: str) -> int | None:
    try:
        return int(float(elapsed)) or None
    except ValueError:
        return None
