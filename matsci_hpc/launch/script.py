"""A job as the script that a scheduler is given."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import matsci_hpc
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.environment import rank_environment, thread_environment
from matsci_hpc.launch.job import Component, Job, fill
from matsci_hpc.launch.schedulers.base import Scheduler
from matsci_hpc.launch.sites.model import Site, limit_in_seconds
from matsci_hpc.resources import shipped
from matsci_hpc.telemetry.provenance import ENVIRONMENT_PREFIXES, SECRET_WORDS

TEMPLATES = "job_templates"


def render(
    job: Job,
    site: Site,
    scheduler: Scheduler,
    *,
    python_words: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """The whole script.

    Args:
        job: what is to be run.
        site: the machine.
        scheduler: whose script it is.
        python_words: what the interpreter is given on each rank; left out, the job's own command.
        environment: further variables of every rank.

    Raises:
        UserInputError: A name that no directive can hold, or a combination that the scheduler cannot do.
    """
    if job.elements and not scheduler.has_arrays:
        raise UserInputError(f"{scheduler.name} has no arrays of jobs")
    if site.environment_archive and len(job.components) > 1:
        raise UserInputError("environment_archive: sbcast reaches one kind of node only; leave it out for a mixed job")
    return str(
        _template(scheduler.template).render(
            job=job,
            site=site,
            scheduler=scheduler,
            about=_about(job),
            directives=scheduler.directives(job, site),
            launches=[_launch(job, site, scheduler, each, python_words) for each in job.components],
            mixed=len(job.components) > 1,
            script=f"{job.stem}{scheduler.suffix}",
            resumes=job.verb != "report",
            rank_environment=_rank_environment(job, site) | dict(environment or {}),
            limit_s=limit_in_seconds(job.time_limit) if job.time_limit else None,
            prefixes="|".join(ENVIRONMENT_PREFIXES),
            secrets="|".join(SECRET_WORDS),
        )
    )


def _rank_environment(job: Job, site: Site) -> dict[str, str]:
    """What all ranks get; ranks on nodes of several kinds are told their threads by the launcher's line."""
    threads = job.components[0].cpus_per_rank if len(job.components) == 1 else None
    return rank_environment(threads, site.environment)


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # No autoescape: this is shell, and every value goes through the filter `sh` or through `directives`.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(shipped(TEMPLATES)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = lambda value: quoted(str(value))
    return environment.get_template(name.removeprefix(f"{TEMPLATES}/"))


def quoted(value: str) -> str:
    """One word of bash on one line: a line within quotes that begins with #BSUB would be a directive to LSF."""
    if "\n" not in value:
        return shlex.quote(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"


def _about(job: Job) -> str:
    """One line of comment; a name with a line break in it would end the comment."""
    words = f"matsci-hpc {matsci_hpc.__version__}: {job.verb} {job.name}"
    return re.sub(r"[^ -~]", "?", words)


def launcher_words(site: Site, scheduler: Scheduler, component: Component, job: Job) -> list[str]:
    """The words that start the ranks of a component, up to the program."""
    words = shlex.split(site.launcher or scheduler.launcher)
    filled = [fill(word, component) for word in words]
    if filled == words and not is_srun(words):
        filled += ["-n", str(job.ranks)]
    return [*filled, *site.binding, *component.launcher_options]


def is_srun(words: Sequence[str]) -> bool:
    """Whether Slurm itself starts the ranks."""
    return words[0].rpartition("/")[2] == "srun"


def _launch(
    job: Job, site: Site, scheduler: Scheduler, component: Component, python_words: Sequence[str]
) -> dict[str, Any]:
    """Launcher and program of one component, as words."""
    words = launcher_words(site, scheduler, component, job)
    program = _program(job, site, python_words)
    threads = thread_environment(component.cpus_per_rank, site.environment)
    return {"words": words, "srun": is_srun(words), "component": component, "program": program, "threads": threads}


def _program(job: Job, site: Site, python_words: Sequence[str]) -> list[str]:
    words = python_words or ("-m", "matsci_hpc", *job.arguments)
    if site.container is None:
        return [str(job.python), *words]
    each = site.container
    return [*each.command, *each.options, each.image, each.python, *words]
