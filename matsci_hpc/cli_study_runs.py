"""The commands of `matsci-hpc study` that make the runs of a study and read them; thin like those of `cli`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matsci_hpc.scaling.study_courses import Course

STUDY = click.argument("study", type=click.Path(path_type=Path))
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
SITE = click.option("--site", help="Instead of the site that the study names.")
VIA = click.option(
    "--via",
    type=click.Choice(["script", "sbatch", "submitit"]),
    default="script",
    help="By job scripts (sbatch is another word for it), or by submitit.",
)
NO_CHECK = click.option("--no-check", is_flag=True, help="Do not look for what must fail.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print exactly what would be submitted, and write nothing.")


@click.command("plan")
@STUDY
@OVERRIDES
@SITE
def plan_study(study: Path, overrides: tuple[str, ...], site: str | None) -> None:
    """Show the runs of a study in their order.

    With ranks, nodes, batch, steps and time, if it is known. Writes nothing.
    """
    from matsci_hpc.scaling.study_plan import load_study
    from matsci_hpc.scaling.study_show import show_plan

    print(show_plan(load_study(study, overrides), site))


@click.command("run")
@STUDY
@OVERRIDES
@SITE
@click.option("--report", is_flag=True, help="Then write the report, as `study report` does.")
def run_study(study: Path, overrides: tuple[str, ...], site: str | None, report: bool) -> None:
    """Make the runs of a study on this machine, one after the other.

    Call it again to go on: finished runs are kept, one that was broken off begins anew.
    """
    from matsci_hpc.scaling.study_plan import load_study
    from matsci_hpc.scaling.study_run import run_study as run

    checked = load_study(study, overrides)
    code = run(checked, site)
    if report and code == 0:
        source, courses = print_collected(checked, site)
        print_report(source, source.parent / "report", courses)
    sys.exit(code)


@click.command("submit")
@STUDY
@OVERRIDES
@SITE
@VIA
@NO_CHECK
@DRY_RUN
def submit_study(
    study: Path, overrides: tuple[str, ...], site: str | None, via: str, no_check: bool, dry_run: bool
) -> None:
    """Hand the runs of a study to a scheduler.

    Those of one size are an array of jobs where the scheduler has arrays. Call it again to submit what is neither
    complete nor queued.
    """
    from matsci_hpc.scaling.study_plan import load_study
    from matsci_hpc.scaling.study_submit import submit_study as submit

    how = "submitit" if via == "submitit" else "script"
    submit(load_study(study, overrides), site, via=how, check=not no_check, dry_run=dry_run)  # type: ignore[arg-type]


@click.command("collect")
@STUDY
@OVERRIDES
@SITE
def collect_study(study: Path, overrides: tuple[str, ...], site: str | None) -> None:
    """Read the runs of a study into one table.

    OUT/results.csv and results.jsonl have a row for each run, OUT/loss.csv the loss against samples and time,
    OUT/dynamics.csv what the optimiser did. Runs that are not complete are listed, and stand in OUT/incomplete.txt.
    """
    from matsci_hpc.scaling.study_plan import load_study

    print_collected(load_study(study, overrides), site)


def print_collected(checked: object, site: str | None) -> tuple[Path, list["Course"]]:
    """Collect a study, say what came of it, and give the path of its table and the courses of its losses."""
    from matsci_hpc.config.study import StudyConfig
    from matsci_hpc.scaling.study_collect import collect_study as collect
    from matsci_hpc.scaling.study_folder import StudyFolder

    assert isinstance(checked, StudyConfig)  # noqa: S101 - only told apart here so that --help stays quick
    found = collect(checked, site)
    path = StudyFolder(checked).results
    print(f"{path}: {len(found.rows)} runs")
    for name, reason in found.incomplete.items():
        print(f"not in it: {name}: {reason}")
    for name, lives in found.lives.items():
        print(f"in it, but restarted: {name}: its times are of {lives} lives, each without its warm-up")
    return path, found.courses


def print_report(
    source: Path,
    out: Path,
    courses: "Sequence[Course]" = (),
    base: int | None = None,
    labels: "Sequence[str] | None" = None,
    columns: "Mapping[str, str] | None" = None,
    seed: int = 0,
) -> None:
    """Write the report of a table of measurements, and say what to mind and where it is."""
    from matsci_hpc.analysis.study_report import write_study_report
    from matsci_hpc.scaling.adapters import read_results
    from matsci_hpc.scaling.study import study_table

    found = study_table(read_results(source, labels, dict(columns or {})), base, seed, lone=bool(courses))
    written = write_study_report(found, out, {"base": base or "fewest ranks of each series", "seed": seed}, courses)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{written.page}")
