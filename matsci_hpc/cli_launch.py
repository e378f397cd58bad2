"""The commands that have to do with jobs and the machines they run on; thin like those of `cli`."""

import sys
from pathlib import Path
from typing import Any

import click

from matsci_hpc.resources import find_config

WORDS = click.argument("words", nargs=-1, required=True, metavar="CONFIG [KEY.SUB=VALUE]... [CONFIG ...]...")
SITE = click.option(
    "--site", required=True, help="Name of a shipped site (matsci-hpc site list) or path of a site file."
)
SITE_FILE = click.argument("name_or_path", metavar="NAME_OR_PATH")
NODES = click.option(
    "--nodes", metavar="N | KIND=N,...", help="Nodes, or nodes of each kind; default: as many as the ranks need."
)
RANKS = click.option("--ranks", type=click.IntRange(min=1), help="Ranks of the whole job; default: fill the nodes.")
TIME = click.option("--time", "time_limit", metavar="[D-]HH:MM:SS", help="Time limit of one life of the job.")
ARRAY = click.option(
    "--array", metavar="KEY=V1,V2,...", help="One training run for each value, as an array of jobs where there is one."
)


@click.command()
@WORDS
@SITE
@NODES
@RANKS
@TIME
@ARRAY
@click.option("--report", is_flag=True, help="Also write the report of each training run, when it is complete.")
@click.option("--after", multiple=True, metavar="JOB", help="Start only when this job has succeeded; may be repeated.")
@click.option(
    "--via",
    type=click.Choice(["script", "sbatch", "submitit"]),
    default="script",
    help="By a job script (sbatch is another word for it), or by submitit.",
)
@click.option("--no-check", is_flag=True, help="Do not look for what must fail.")
@click.option("--dry-run", is_flag=True, help="Print exactly what would be run, and run nothing.")
def submit(
    words: tuple[str, ...],
    site: str,
    nodes: str | None,
    ranks: int | None,
    time_limit: str | None,
    array: str | None,
    report: bool,
    after: tuple[str, ...],
    via: str,
    no_check: bool,
    dry_run: bool,
) -> None:
    """Start preparation and training, here or through a scheduler.

    `--site local` is this machine. Several configs make a chain: what reads the data or the run of another waits for
    it. Each CONFIG may be followed by its own overrides.
    """
    from matsci_hpc.launch.start import Wish, start
    from matsci_hpc.launch.words import key_and_values, runs_of, size_of

    wish = Wish(
        runs=[(find_config(config), overrides) for config, overrides in runs_of(words)],
        site=site,
        request=size_of(nodes, ranks, time_limit),
        array=key_and_values(array) if array is not None else None,
        report=report,
        after=after,
        via="submitit" if via == "submitit" else "script",
        check=not no_check,
    )
    sys.exit(start(wish, dry_run=dry_run))


@click.command()
@WORDS
@SITE
@NODES
@RANKS
@TIME
@ARRAY
@click.option("--like", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Take the speed of this run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    words: tuple[str, ...],
    site: str,
    nodes: str | None,
    ranks: int | None,
    time_limit: str | None,
    array: str | None,
    like: Path | None,
    as_json: bool,
) -> None:
    """Find what would fail, before it waits in a queue.

    Takes the words of `submit` and submits nothing. Sizes, data, paths, disk, locks, memory, wall time, time to
    save; on a login node the scheduler is asked, too. A few steps of training are taken here to see how fast and how
    large they are. Exit code 2 if there is an error.
    """
    from matsci_hpc.launch.start import Wish
    from matsci_hpc.launch.words import key_and_values, runs_of, size_of
    from matsci_hpc.preflight.command import check_wish

    wish = Wish(
        runs=[(find_config(config), overrides) for config, overrides in runs_of(words)],
        site=site,
        request=size_of(nodes, ranks, time_limit),
        array=key_and_values(array) if array is not None else None,
    )
    sys.exit(check_wish(wish, like, json=as_json))


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also jobs that ended more than a day ago.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each job.")
def jobs(everything: bool, as_json: bool) -> None:
    """How the jobs stand that were submitted from this account.

    The scheduler is asked every 30 s at most.
    """
    from matsci_hpc.launch.jobs import show_jobs

    show_jobs(everything=everything, as_json=as_json)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="JOB_OR_RUN_DIR...")
def cancel(targets: tuple[str, ...]) -> None:
    """End jobs and those that wait for them.

    By number or run directory. To save first: touch RUN_DIR/STOP.
    """
    from matsci_hpc.launch.cancel import cancel_jobs

    cancel_jobs(targets)


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path), metavar="[DATA_OR_RUN_DIR]")
@click.option("--comm", is_flag=True, help="Measure all-reduces on every backend instead; for several ranks.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, help="With --comm: for each backend.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(path: Path | None, comm: bool, seconds: float, as_json: bool) -> None:
    """What this machine has, what of it is used, and why the rest is not.

    Packages, CPU, GPUs, MPI, networks, and the environment of a rank; with DATA_OR_RUN_DIR its file system, too. Start
    it under mpirun, srun or torchrun to see how the ranks of a job are placed. Exit code 3 if no training could run.
    """
    if comm:
        if path is not None:
            raise click.UsageError("--comm looks at no folder: leave DATA_OR_RUN_DIR out")
        from matsci_hpc.doctor.comm import doctor_comm

        sys.exit(doctor_comm(seconds=seconds, as_json=as_json))
    from matsci_hpc.doctor.command import doctor as look

    sys.exit(look(path, as_json=as_json))


@click.group()
def site() -> None:
    """Describe the machines that jobs run on."""


@site.command("list")
def site_list() -> None:
    """The machines that matsci-hpc knows, each a file to take as it is or to copy."""
    from matsci_hpc.launch.sites.find import load_site, site_names

    for name in site_names():
        found = load_site(name)
        print(f"{name:<22} {found.scheduler:<6} {found.description or ''}")


@site.command("show")
@SITE_FILE
def site_show(name_or_path: str) -> None:
    """Print a site file as it stands, to read or to copy."""
    from matsci_hpc.launch.sites.find import load_site, site_path

    load_site(name_or_path)
    print(site_path(name_or_path).read_text(encoding="utf-8"), end="")


@site.command("new")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--from", "base", metavar="NAME", help="Begin with this site (matsci-hpc site list).")
@click.option("--scheduler", help="slurm, pbs, lsf, flux or local; default: the one found on PATH.")
@click.option("--partition", help="Queue of the jobs.")
@click.option("--account", help="Project that is charged.")
@click.option("--qos", help="Quality of service (Slurm).")
@click.option("--launcher", help="What starts the ranks, such as `srun --mpi=pmix`.")
@click.option("--time", "time_limit", metavar="[D-]HH:MM:SS", help="Time limit of one life of a job.")
@click.option("--ranks-per-node", type=click.IntRange(min=1))
@click.option("--cpus-per-rank", type=click.IntRange(min=1), help="Cores of a rank.")
@click.option("--gpus-per-rank", type=click.IntRange(min=0))
@click.option("--setup", multiple=True, metavar="LINE", help="Shell line before the ranks start; may be repeated.")
@click.option("--yes", "take_defaults", is_flag=True, help="Ask nothing: what no option answers gets its default.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def site_new(path: Path, take_defaults: bool, overwrite: bool, **answers: Any) -> None:
    """Write a site file for this cluster from a few questions, each of which an option can answer."""
    from matsci_hpc.launch.sites.new import Answers, new_site

    new_site(path, Answers(**answers), take_defaults=take_defaults, overwrite=overwrite)


@site.command("check")
@SITE_FILE
def site_check(name_or_path: str) -> None:
    """On a login node: does the site file fit the machine? Submits nothing. Exit code 2 if jobs would fail."""
    from matsci_hpc.launch.sites.check import check_site

    check_site(name_or_path)


@site.command("pack")
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False))
def site_pack(archive: Path) -> None:
    """Pack this Python environment into one tar, which jobs copy to each node (`environment_archive`)."""
    from matsci_hpc.launch.sites.pack import pack

    pack(archive)
