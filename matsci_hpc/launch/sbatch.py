"""A job as a Slurm batch script."""

import re
import shlex

from jinja2 import Environment, StrictUndefined

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.environment import RANK_ENVIRONMENT
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites import Site
from matsci_hpc.resources import shipped

TEMPLATE = "job_templates/slurm/job.sbatch.j2"

_PLAIN = re.compile(r"[A-Za-z0-9_./%+:@,=\[\]-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def render(job: Job, site: Site) -> str:
    """The script that `sbatch` is given.

    Raises:
        UserInputError: A name that no #SBATCH line can hold.
    """
    # No autoescape: this is shell, and every value goes through the filter `sh` or through `directives`.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["sh"] = shlex.quote
    template = environment.from_string(shipped(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        job=job,
        site=site,
        directives=directives(job, site),
        launcher=_launcher(job, site),
        command=shlex.join(job.command),
        work_dir=str(job.work_dir),
        run_dir=str(job.run_dir),
        rank_environment=RANK_ENVIRONMENT,
    )


def directives(job: Job, site: Site) -> list[str]:
    """Options of the #SBATCH lines, in the order of the script.

    `--ntasks` alone would let Slurm spread the ranks unevenly, so nodes and ranks per node are both given.
    """
    options: list[tuple[str, str | int | None]] = [
        ("job-name", job.name),
        ("account", site.account),
        ("partition", site.partition),
        ("qos", site.qos),
        ("nodes", job.nodes),
        ("ntasks-per-node", job.ranks_per_node),
        ("cpus-per-task", job.cpus_per_rank),
        ("gpus-per-node", job.ranks_per_node * job.gpus_per_rank or None),
        ("mem", job.memory),
        ("time", job.time_limit),
        # `B:` signals the batch shell alone; otherwise every process of every rank would get it.
        ("signal", f"B:USR1@{site.signal_before_end_s}" if job.verb == "train" else None),
        # One log over all lives; the job number is the only pattern, so a % in a path is doubled.
        ("output", f"{job.run_dir}".replace("%", "%%") + "/slurm-%j.out"),
    ]
    lines = [_directive(name, str(value)) for name, value in options if value is not None]
    lines += ["--open-mode=append", "--requeue"]
    for option in site.options:
        name, equals, value = option.removeprefix("--").partition("=")
        lines.append(_directive(name, value) if equals else _checked(option))
    return lines


def _directive(name: str, value: str) -> str:
    """`--name=value`, quoted in the way of sbatch, which is not that of a shell."""
    _checked(value)
    if not _PLAIN.fullmatch(value):
        value = '"' + value.replace('"', '\\"') + '"'
    return f"--{name}={value}"


def _checked(value: str) -> str:
    # A newline would end the directive and start a line of shell. A backslash in a log's path turns its
    # patterns off, and is an escape everywhere else.
    if "\\" in value or _UNPRINTABLE.search(value):
        raise UserInputError(
            f"{value!r} has a line break, control character or backslash, which #SBATCH lines cannot hold"
        )
    return value


def _launcher(job: Job, site: Site) -> str:
    """The command that starts the ranks, as shell text."""
    words = site.launcher_words
    if words[0].rpartition("/")[2] == "srun":
        # Since Slurm 22.05 srun does not inherit the cores per task. A dead rank must end the others at once.
        return f'{shlex.join(words)} --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1'
    return f"{shlex.join(words)} -n {job.ranks}"
