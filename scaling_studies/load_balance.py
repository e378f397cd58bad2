"""Efficiency of 8 to 4,096 ranks as limited by balance alone, from the sizes of real samples.

    python scaling_studies/load_balance.py [STUDY.yaml] [KEY=VALUE]...

A step takes as long as its busiest rank. Efficiency is the mean over steps of the mean over the largest predicted cost
(edges + 30 atoms) of the ranks, for three ways to make a step:

- equal numbers: every rank takes as many samples of a random order, as DistributedSampler gives them.
- by cost: the same global batch, divided by `matsci_hpc.loading.divide`: largest first (LPT).
- as trained: what the program does, which also trains large samples together (`grouping: auto`) where ranks would idle.

Writes OUT/results.csv and OUT/efficiency.png.
"""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from matsci_hpc.analysis.plotting import PALETTE
from matsci_hpc.analysis.study_picture import dress
from matsci_hpc.cli import plain_errors
from matsci_hpc.config.base import Folder, Section
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.loading.forecast import add_up, forecast_balance
from matsci_hpc.loading.grouping import resolve_grouping
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import PlanSpec, SampleSizes, plan_spec
from matsci_hpc.resources import find_config

WAYS = ("equal numbers", "by cost", "as trained")


class LoadBalance(Section):
    """What is compared."""

    prepare: list[Path]
    """Configs of the data sets."""
    out: Folder
    """Folder of the results."""
    ranks: list[PositiveInt]
    graphs_per_rank: list[PositiveInt]
    steps: PositiveInt
    """Steps of an epoch, all of which are divided if there are 64 at most."""


def data_set(recipe: Path) -> Path:
    """The folder of a data set, prepared if it is not there."""
    config = load_config(PrepConfig, find_config(recipe))
    if not (config.out / "dataset.json").exists():
        subprocess.run([sys.executable, "-m", "matsci_hpc", "prep", str(recipe)], check=True)
    return config.out


def efficiencies(folder: Path, ranks: int, graphs_per_rank: int, steps: int) -> dict[str, Any]:
    """One line of the table."""
    graphs = ranks * graphs_per_rank
    first = _config(folder, graphs, 1.0)
    samples = Plan(open_collection(first.data), plan_spec(first, open_collection(first.data))).samples(0)
    config = _config(folder, graphs, max(1.0, steps * graphs / samples))
    sizes = open_collection(config.data)
    spec = plan_spec(config, sizes)
    totals = add_up(sizes, Plan(sizes, spec))
    plain = forecast_balance(sizes, spec, totals, ranks)
    above = resolve_grouping(sizes, spec, ranks)
    taken = forecast_balance(sizes, replace(spec, group_above=above), totals, ranks) if above is not None else plain
    found = dict(zip(WAYS, (_equal_numbers(sizes, spec, ranks), plain.efficiency, taken.efficiency), strict=True))
    return {
        "data set": folder.name,
        "samples": samples,
        "ranks": ranks,
        "graphs per rank": graphs_per_rank,
        **{way: f"{value:.4f}" for way, value in found.items()},
        "busy time as trained": f"{taken.time_weighted:.4f}",
        "worst twentieth as trained": f"{taken.worst:.4f}",
        "grouped above": "" if above is None else f"{above:.0f}",
        "largest sample over mean share": f"{totals.largest / taken.mean_share:.3f}",
    }


def _config(folder: Path, graphs: int, repeat: float) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "run_dir": "unused",
            "data": {"train": [{"path": str(folder), "repeat": repeat}], "held_out": None},
            "steps": 1,
            "batch": {"graphs": graphs},
        }
    )


def _equal_numbers(sizes: SampleSizes, spec: PlanSpec, ranks: int) -> float:
    """Of the same global batches, divided over the ranks at random."""
    epoch = Plan(sizes, spec).epoch(0)
    random = np.random.default_rng(spec.seed)
    found = []
    for step in range(min(epoch.steps - 1, 64)):  # the last one may be short
        samples = random.permutation(epoch.batch(step))
        loads = COST.of(sizes.atoms(samples), sizes.edges(samples)).reshape(ranks, -1).sum(axis=1)
        found.append(loads.mean() / loads.max())
    return float(np.mean(found))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each data set: lines for the ways, thin ones for few graphs per rank."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data set"] for row in rows))
    batches = sorted({row["graphs per rank"] for row in rows})
    figure = Figure(figsize=(9.2, 7.0), dpi=150, layout="constrained")
    for axis, name in zip(
        np.ravel(figure.subplots(2, -(-len(names) // 2), sharex=True, sharey=True)), names, strict=False
    ):
        for place, way in enumerate(WAYS):
            for style, batch in zip(("--", "-"), (batches[0], batches[-1]), strict=True):
                own = [row for row in rows if row["data set"] == name and row["graphs per rank"] == batch]
                axis.plot(
                    [row["ranks"] for row in own],
                    [float(row[way]) for row in own],
                    color=PALETTE[place],
                    linestyle=style,
                    marker="os^"[place],
                    markersize=4,
                    linewidth=1.2,
                    label=f"{way}, {batch} graphs per rank",
                )
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_xscale("log", base=2)
        axis.set_ylim(0, 1.02)
        axis.set(xlabel="ranks", ylabel="efficiency by balance alone")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        dress(axis)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Make the study."""
    words = sys.argv[1:]
    path = Path(words.pop(0)) if words and "=" not in words[0] else Path("scaling_studies/load_balance/study.yaml")
    study = load_config(LoadBalance, find_config(path), tuple(words))
    study.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for recipe in study.prepare:
        folder = data_set(recipe)
        for graphs in study.graphs_per_rank:
            for ranks in study.ranks:
                rows.append(efficiencies(folder, ranks, graphs, study.steps))
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items() if value != ""), flush=True)
    with (study.out / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, study.out / "efficiency.png")
    print(study.out / "efficiency.png")


if __name__ == "__main__":
    with plain_errors():
        main()
