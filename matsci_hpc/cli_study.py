"""The commands of scaling studies; thin like those of `cli`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from matsci_hpc.cli_study_runs import (
    OVERRIDES,
    SITE,
    collect_study,
    plan_study,
    print_collected,
    print_report,
    run_study,
    submit_study,
)
from matsci_hpc.errors import UserInputError

if TYPE_CHECKING:
    from matsci_hpc.scaling.study_courses import Course


@click.group()
def study() -> None:
    """Measure how a job scales, and say what it means."""


for command in (plan_study, run_study, submit_study, collect_study):
    study.add_command(command)


@study.command()
@click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY]")
@OVERRIDES
@SITE
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measurements as CSV or JSON lines, a performance log or report of ReFrame, or a result table of JUBE.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the report; default: that of STUDY, report.",
)
@click.option("--base", type=click.IntRange(min=1), metavar="RANKS", help="Compare with this; default: the fewest.")
@click.option("--labels", metavar="A,B,...", help="Columns that tell series apart; default: all without a meaning.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=THEIRS",
    help="Call a column of FILE ranks, throughput, throughput_unit, time_s, nodes or repeat; may be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the bootstrap of the intervals.")
def report(
    study: Path | None,
    overrides: tuple[str, ...],
    site: str | None,
    source: Path | None,
    out: Path | None,
    base: int | None,
    labels: str | None,
    columns: tuple[str, ...],
    seed: int,
) -> None:
    """Efficiency and laws of scaling, of STUDY or from a file of measurements made by anyone.

    With STUDY its runs are collected first, and the report shows how their losses went.

    \b
    Each row of FILE is one measurement, with the columns
      ranks       how many
      throughput  samples/s, or time_s: seconds for the same work
      nodes, scaling (strong or weak), samples, repeat   if there are any
      others      labels such as backend: rows of the same labels are one series
    """  # noqa: D301 - click looks for the character itself
    if (study is None) == (source is None):
        raise click.UsageError("give STUDY, or measurements by --from FILE" + ("" if study is None else ", not both"))
    courses: list[Course] = []
    if study is not None:
        from matsci_hpc.scaling.study_plan import load_study

        source, courses = print_collected(load_study(study, overrides), site)
        out = out or source.parent / "report"
    if source is None or out is None:
        raise click.UsageError("--out DIR is missing: with --from the report has no folder of its own")
    named = dict(_pair(each) for each in columns)
    print_report(source, out, courses, base, labels.split(",") if labels is not None else None, named, seed)


def _pair(text: str) -> tuple[str, str]:
    name, equals, theirs = text.partition("=")
    if not (name and equals and theirs):
        raise UserInputError(f"--column {text}: write NAME=THEIRS, such as --column ranks=np")
    return name, theirs
