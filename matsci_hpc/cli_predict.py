"""The command that predicts a run on more ranks; thin like those of `cli`."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from matsci_hpc.resources import find_config

if TYPE_CHECKING:
    from matsci_hpc.scaling.forecast_run import Question

MOST_RANKS = 65_536


class RankNumbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers of ranks, such as 2,8,64."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Ascending, each once."""
        if isinstance(value, tuple):
            return value
        try:
            found = sorted({int(each) for each in str(value).split(",")})
        except ValueError:
            self.fail(f"{value!r} is no list of numbers, such as 2,8,64", param, ctx)
        if found[0] < 1 or found[-1] > MOST_RANKS:
            self.fail(f"numbers of ranks are from 1 to {MOST_RANKS:,}", param, ctx)
        return tuple(found)


class Computing(click.ParamType):  # type: ignore[type-arg]
    """Milliseconds of a step whatever its share, and nanoseconds for each unit of predicted cost: 20.9,6.95."""

    name = "MS,NS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """In seconds."""
        if isinstance(value, tuple):
            return value
        try:
            fixed_ms, per_cost_ns = (float(each) for each in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers, such as 20.9,6.95", param, ctx)
        if not (0 <= fixed_ms < math.inf and 1e-6 < per_cost_ns < math.inf):
            self.fail("milliseconds are not negative, nanoseconds above 0", param, ctx)
        return 1e-3 * fixed_ms, 1e-9 * per_cost_ns


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option(
    "--ranks", type=RankNumbers(), help="Numbers of ranks; the smallest has efficiency 1. A study has its own."
)
@click.option("--ranks-per-node", type=click.IntRange(min=1), help="Default: by the section job, else cores here.")
@click.option("--threads", type=click.IntRange(min=1), help="Cores of a rank in the trial here.")
@click.option(
    "--from", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN_DIR", help="Take the steps of a run."
)
@click.option(
    "--computing",
    type=Computing(),
    help="Forward and backward as measured elsewhere: ms of any step, and ns for each edge (an atom costs as 30).",
)
@click.option(
    "--fabric", "fabrics", multiple=True, metavar="NAME", help="Network from a table, between or within nodes."
)
@click.option("--comm", type=click.Path(path_type=Path), metavar="FILE", help="Network as `doctor --comm` measured it.")
@click.option("--ports", type=click.IntRange(min=1), default=1, help="Network ports of a node.")
@click.option("--algorithm", type=click.Choice(["ring", "tree", "halving", "two_level"]), help="Default: the quickest.")
@click.option("--weak/--strong", default=None, help="Let the batch grow with the ranks; default: strong.")
@click.option(
    "--noise", type=click.FloatRange(min=0, max=1), help="Spread of a step's time between ranks, such as 0.05."
)
@click.option("--storage", type=click.FloatRange(min=0, min_open=True), help="GB/s that all ranks read together.")
@click.option("--seconds", type=click.FloatRange(min=0.1, max=120), default=8.0, help="Of the trial here.")
@click.option("--site", help="Of a study: instead of the site that it names.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write a page there, too, and its numbers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def predict(
    config: Path,
    overrides: tuple[str, ...],
    storage: float | None,
    ranks: tuple[int, ...] | None,
    weak: bool | None,
    site: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Efficiency, times and node-hours of a run on more ranks, before it is queued.

    CONFIG is that of a training run, or of a study: then every size that it names is predicted (and those of --ranks),
    by its own runs as far as they are complete, and set beside what they measured.

    From the cost of a step, measured here or recorded by runs (--from); the plan of the run on so many ranks, by the
    index of the data alone; and a model of all-reduces on the network. What it counts with and what it does not:
    docs/prediction.md.

    \b
      graphs      of a global batch
      step        mean time, without evaluations and checkpoints
      epoch       the same of all steps of an epoch
      node-hours  of an epoch
      efficiency  time of an epoch times ranks, the smallest number over these
      limited by  the largest part of a step besides computing, unless these are 10 % of it at most
    """  # noqa: D301 - click looks for the character itself
    from matsci_hpc.scaling.forecast_run import Question

    if options["computing"] is not None and options["runs"]:
        raise click.UsageError("give --computing or --from, not both")
    if out is not None and out.exists() and not out.is_dir():
        raise click.UsageError(f"--out {out}: is a file; name a folder")
    path = find_config(config)
    asked = Question(
        config=path,
        overrides=overrides,
        ranks=ranks or (),
        weak=bool(weak),
        storage_bytes_per_s=None if storage is None else 1e9 * storage,
        **options,
    )
    if _is_study(path):
        _predict_study(asked, weak, site, out, as_json)
        return
    if ranks is None:
        raise click.UsageError("--ranks is missing: only a study names its sizes")
    if site is not None:
        raise click.UsageError("--site is for a study; of a training run give --ranks-per-node")
    from matsci_hpc.scaling.forecast_run import forecast_run
    from matsci_hpc.scaling.prediction_table import render, to_json

    found = forecast_run(asked)
    _tell(render(found, asked), to_json(found, asked), as_json)
    if out is not None:
        from matsci_hpc.analysis.prediction_report import write_prediction

        _say(write_prediction(found, asked, out), as_json)


def _predict_study(question: "Question", weak: bool | None, site: str | None, out: Path | None, as_json: bool) -> None:
    from matsci_hpc.errors import UserInputError
    from matsci_hpc.scaling.study_forecast import forecast_study
    from matsci_hpc.scaling.study_forecast_table import render_study, study_to_json
    from matsci_hpc.scaling.study_plan import load_study

    study = load_study(question.config, question.overrides)
    if weak is not None and weak != (study.scaling == "weak"):
        raise UserInputError(f"{question.config}: is of {study.scaling} scaling; leave out --weak and --strong")
    found = forecast_study(study, question, site)
    name = str(question.config)
    _tell(render_study(found, name), study_to_json(found, name), as_json)
    if out is not None:
        from matsci_hpc.analysis.prediction_report import write_study_prediction

        _say(write_study_prediction(found, question, out), as_json)


def _is_study(path: Path) -> bool:
    """Whether a file is the config of a study."""
    from matsci_hpc.config.loading import read_yaml

    keys = read_yaml(path)
    return "base" in keys and "axes" in keys


def _tell(text: str, values: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(values, indent=1) if as_json else text)


def _say(page: Path, as_json: bool) -> None:
    """Where the page is; beside a JSON object on the other stream, so that a script reads the object alone."""
    click.echo(f"{page}", err=as_json)
