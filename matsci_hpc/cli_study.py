"""The commands of scaling studies; thin like those of `cli`."""

from pathlib import Path

import click

from matsci_hpc.errors import UserInputError


@click.group()
def study() -> None:
    """Measure how a job scales, and say what it means."""


@study.command()
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measurements as CSV or JSON lines, a performance log or report of ReFrame, or a result table of JUBE.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report.")
@click.option("--base", type=click.IntRange(min=1), metavar="RANKS", help="Compare with this; default: the fewest.")
@click.option("--labels", metavar="A,B,...", help="Columns that tell series apart; default: all without a meaning.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=THEIRS",
    help="Call a column of FILE ranks, throughput, time_s, nodes or repeat; may be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the bootstrap of the intervals.")
def report(source: Path, out: Path, base: int | None, labels: str | None, columns: tuple[str, ...], seed: int) -> None:
    """Efficiency and laws of scaling from a file of measurements, made by anyone.

    \b
    Each row of FILE is one measurement, with the columns
      ranks       how many
      throughput  samples/s, or time_s: seconds for the same work
      nodes, scaling (strong or weak), samples, repeat   if there are any
      others      labels such as backend: rows of the same labels are one series
    """  # noqa: D301 - click looks for the character itself
    from matsci_hpc.analysis.study_report import write_study_report
    from matsci_hpc.scaling.adapters import read_results
    from matsci_hpc.scaling.study import study_table

    named = dict(_pair(each) for each in columns)
    table = read_results(source, labels.split(",") if labels is not None else None, named)
    found = study_table(table, base, seed)
    written = write_study_report(found, out, {"base": base or "fewest ranks of each series", "seed": seed})
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{written.page}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, theirs = text.partition("=")
    if not (name and equals and theirs):
        raise UserInputError(f"--column {text}: write NAME=THEIRS, such as --column ranks=np")
    return name, theirs
