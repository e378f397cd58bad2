"""The command that predicts a run on more ranks; thin like those of `cli`."""

from pathlib import Path
from typing import Any

import click

from matsci_hpc.resources import find_config

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


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("--ranks", type=RankNumbers(), required=True, help="Numbers of ranks; the smallest has efficiency 1.")
@click.option("--ranks-per-node", type=click.IntRange(min=1), help="Default: by the section job, else cores here.")
@click.option("--threads", type=click.IntRange(min=1), help="Cores of a rank in the trial here.")
@click.option(
    "--from", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN_DIR", help="Take the steps of a run."
)
@click.option(
    "--fabric", "fabrics", multiple=True, metavar="NAME", help="Network from a table, between or within nodes."
)
@click.option("--comm", type=click.Path(path_type=Path), metavar="FILE", help="Network as `doctor --comm` measured it.")
@click.option("--ports", type=click.IntRange(min=1), default=1, help="Network ports of a node.")
@click.option("--algorithm", type=click.Choice(["ring", "tree", "halving", "two_level"]), help="Default: the quickest.")
@click.option("--weak/--strong", default=False, help="Let the batch grow with the ranks; default: strong.")
@click.option(
    "--noise", type=click.FloatRange(min=0, max=1), help="Spread of a step's time between ranks, such as 0.05."
)
@click.option("--storage", type=click.FloatRange(min=0, min_open=True), help="GB/s that all ranks read together.")
@click.option("--seconds", type=click.FloatRange(min=0.1, max=120), default=8.0, help="Of the trial here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def predict(
    config: Path,
    overrides: tuple[str, ...],
    storage: float | None,
    weak: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Efficiency, times and node-hours of a run on more ranks, before it is queued.

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
    import json

    from matsci_hpc.scaling.forecast_run import Question, forecast_run
    from matsci_hpc.scaling.prediction_table import render, to_json

    question = Question(
        config=find_config(config),
        overrides=overrides,
        weak=weak,
        storage_bytes_per_s=None if storage is None else 1e9 * storage,
        **options,
    )
    found = forecast_run(question)
    print(json.dumps(to_json(found, question), indent=1) if as_json else render(found, question))
