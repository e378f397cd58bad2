"""What a symmetry pretraining had learned after so many clouds: accuracy by class, confusion by family of point groups.

    python scaling_studies/symmetry_learning.py RUN EVALUATION.json... OUT

The files are those of `matsci-hpc evaluate RUN --checkpoint STEP --out EVALUATION.json`, one for each checkpoint.
Writes OUT/by_class.csv, OUT/families.csv and OUT/learning.png.
"""

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matsci_hpc.analysis.study_picture import dress
from matsci_hpc.cli import plain_errors
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.confusion import Confusion
from matsci_hpc.errors import UserInputError
from matsci_hpc.point_groups import FAMILIES, family, order

TARGET = "point_group"


@dataclass(frozen=True, slots=True)
class Moment:
    """What a checkpoint knew.

    Attributes:
        samples_seen: clouds that it had been trained on.
        classes: confusion of the point groups.
        families: the same of their families.
    """

    samples_seen: int
    classes: Confusion
    families: Confusion


def read(path: Path, graphs: int) -> Moment:
    """One evaluation.

    Args:
        path: of the file.
        graphs: that the run learned from in a step.

    Raises:
        UserInputError: it has no confusion of point groups.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    classes = Confusion.from_json(record.get("confusion", {}).get(TARGET))
    if classes is None:
        raise UserInputError(f"{path}: holds no confusion of {TARGET}; make it with matsci-hpc evaluate --data")
    groups = [family(name) for name in classes.classes]
    return Moment(record["step"] * graphs, classes, classes.folded(groups, FAMILIES))


def class_rows(moments: Iterable[Moment]) -> list[dict[str, Any]]:
    """A line for each class and moment: clouds of the class, and how many of them were named right."""
    return [
        {
            "samples_seen": moment.samples_seen,
            "class": name,
            "family": family(name),
            "clouds": clouds,
            "right": right,
            "operations": order(name),
        }
        for moment in moments
        for name, clouds, right in zip(
            moment.classes.classes, moment.classes.samples, moment.classes.right, strict=True
        )
    ]


def family_rows(moments: Iterable[Moment]) -> list[dict[str, Any]]:
    """A line for each pair of families and moment: clouds of the one that were named as of the other."""
    return [
        {"samples_seen": moment.samples_seen, "family": true, "named": named, "clouds": clouds}
        for moment in moments
        for true, row in zip(moment.families.classes, moment.families.counts, strict=True)
        for named, clouds in zip(moment.families.classes, row, strict=True)
    ]


def draw(moments: list[Moment], path: Path) -> None:
    """On the left accuracy by class over the samples seen, a line for each family; on the right the last confusion."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    last = moments[-1]
    for place, name in enumerate(last.families.classes):
        lines = [row for row in class_rows(moments) if row["family"] == name]
        shares = [
            sum(row["right"] for row in lines if row["samples_seen"] == moment.samples_seen)
            / sum(row["clouds"] for row in lines if row["samples_seen"] == moment.samples_seen)
            for moment in moments
        ]
        seen = [moment.samples_seen for moment in moments]
        left.plot(seen, shares, color=colormaps["tab10"](place), marker="o", markersize=3.5, linewidth=1.4, label=name)
    left.set_xscale("log")
    left.set_ylim(0, 1.0)
    left.set(xlabel="clouds seen", ylabel="point group named right")
    left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    left.legend(frameon=False, fontsize=8, title="family", title_fontsize=8)
    left.set_title("Accuracy by family of point groups", loc="left", fontsize=10)
    dress(left)
    names = last.families.classes
    shares = [[share if share is not None else 0.0 for share in row] for row in last.families.shares]
    right.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for true, row in enumerate(shares):
        for named, share in enumerate(row):
            if share >= 0.0005:
                color = "white" if share > 0.5 else "#3A4148"
                right.text(named, true, f"{100 * share:.1f}", ha="center", va="center", fontsize=7, color=color)
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.set(xlabel="family named", ylabel="family of the cloud")
    right.set_title(f"Per cent of each family after {last.samples_seen:,} clouds", loc="left", fontsize=10)
    right.spines[:].set_visible(False)
    right.tick_params(length=0)
    figure.savefig(path, metadata={"Software": None})


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """A table as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path)


def main() -> None:
    """Make the tables and the picture."""
    if len(sys.argv) < 4:
        raise UserInputError("give RUN EVALUATION.json... OUT")
    run, *sources, out = map(Path, sys.argv[1:])
    graphs = load_config(TrainConfig, run / "config.yaml").batch.graphs
    if graphs is None:
        raise UserInputError(f"{run}: its steps are of no fixed number of clouds")
    moments = sorted((read(path, graphs) for path in sources), key=lambda moment: moment.samples_seen)
    out.mkdir(parents=True, exist_ok=True)
    write(class_rows(moments), out / "by_class.csv")
    write(family_rows(moments), out / "families.csv")
    draw(moments, out / "learning.png")
    print(out / "learning.png")


if __name__ == "__main__":
    with plain_errors():
        main()
