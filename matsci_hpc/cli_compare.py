"""The commands of comparisons; thin like those of `cli`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from matsci_hpc.cli_study_runs import DRY_RUN, NO_CHECK, OVERRIDES, VIA

if TYPE_CHECKING:  # so that --help stays quick
    from matsci_hpc.comparison.plan import ArmRun
    from matsci_hpc.config.comparison import ComparisonConfig

COMPARISON = click.argument("comparison", type=click.Path(path_type=Path))
SITE = click.option("--site", help="Instead of the site that the comparison names.")


@click.group()
def compare() -> None:
    """Compare ways to train at equal budget, such as pretrained against random.

    Over seeds and training-set sizes, with mean, spread and a paired test.
    """


@compare.command("plan")
@COMPARISON
@OVERRIDES
@SITE
def plan_comparison(comparison: Path, overrides: tuple[str, ...], site: str | None) -> None:
    """Show the runs of a comparison, or why its budgets are unequal.

    Writes nothing.
    """
    from matsci_hpc.comparison.plan import load_comparison
    from matsci_hpc.comparison.show import show_comparison

    click.echo(show_comparison(load_comparison(comparison, overrides), site))


@compare.command("run")
@COMPARISON
@OVERRIDES
@SITE
def run_comparison(comparison: Path, overrides: tuple[str, ...], site: str | None) -> None:
    """Make the runs on this machine, one after the other, then the report.

    Call it again to go on: finished runs are kept, one that was broken off goes on from its checkpoint.
    """
    from matsci_hpc.comparison.collect import result_words
    from matsci_hpc.comparison.plan import load_comparison
    from matsci_hpc.comparison.plan import plan_comparison as plan
    from matsci_hpc.comparison.results import read_result
    from matsci_hpc.scaling.study_run import run_here

    checked = load_comparison(comparison, overrides)

    def tell(run: "ArmRun") -> str:
        return result_words(checked, read_result(checked, run))

    code = run_here(checked, lambda here: plan(checked, here), tell, site)
    if code == 0:
        _report(checked, site, None)
    sys.exit(code)


@compare.command("submit")
@COMPARISON
@OVERRIDES
@SITE
@VIA
@NO_CHECK
@DRY_RUN
def submit_comparison(
    comparison: Path, overrides: tuple[str, ...], site: str | None, via: str, no_check: bool, dry_run: bool
) -> None:
    """Hand the runs to a scheduler, as an array of jobs where it has arrays.

    Call it again to submit what is neither complete nor queued.
    """
    from matsci_hpc.comparison.plan import load_comparison
    from matsci_hpc.comparison.plan import plan_comparison as plan
    from matsci_hpc.scaling.study_submit import submit_runs

    checked = load_comparison(comparison, overrides)
    how = "submitit" if via == "submitit" else "script"
    submit_runs(
        checked,
        lambda there: plan(checked, there),
        site,
        via=how,  # type: ignore[arg-type]
        check=not no_check,
        dry_run=dry_run,
    )


@compare.command("collect")
@COMPARISON
@OVERRIDES
@SITE
def collect_comparison(comparison: Path, overrides: tuple[str, ...], site: str | None) -> None:
    """Read the runs into tables.

    OUT/results.csv has a row for each run and metric, OUT/curves.csv the held-out metrics against samples. Runs that
    are not complete are listed, and stand in OUT/incomplete.txt.
    """
    from matsci_hpc.comparison.collect import collect_comparison as collect
    from matsci_hpc.comparison.collect import missing_words, results_path
    from matsci_hpc.comparison.plan import load_comparison

    checked = load_comparison(comparison, overrides)
    found = collect(checked, site)
    click.echo(f"{results_path(checked)}: {len(found.results)} runs")
    for line in missing_words(found.incomplete):
        click.echo(line)


@compare.command("report")
@COMPARISON
@OVERRIDES
@SITE
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report; default: OUT/report."
)
def report_comparison(comparison: Path, overrides: tuple[str, ...], site: str | None, out: Path | None) -> None:
    """Table, plot and verdicts of a comparison.

    Its runs are collected first. Text, Markdown, CSV, PNG and one self-contained HTML page.
    """
    from matsci_hpc.comparison.plan import load_comparison

    _report(load_comparison(comparison, overrides), site, out)


def _report(checked: "ComparisonConfig", site: str | None, out: Path | None) -> None:
    from matsci_hpc.analysis.comparison_report import plain_text, write_comparison_report
    from matsci_hpc.comparison.collect import collect_comparison as collect
    from matsci_hpc.comparison.collect import results_path

    found = collect(checked, site)
    written = write_comparison_report(found, out or results_path(checked).parent / "report")
    click.echo(plain_text(found))
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{written.page}")
