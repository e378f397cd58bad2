"""What a symmetry pretraining had learned after so many clouds: accuracy by class, confusion by family of point groups.

    python scaling_studies/symmetry_learning.py RUN EVALUATION.json... OUT

The files are those of `matsci-hpc evaluate RUN --checkpoint STEP --out EVALUATION.json`, one for each checkpoint.
Writes OUT/by_class.csv, OUT/families.csv, OUT/operations.csv, OUT/course.csv and OUT/learning.png.
"""

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from matsci_hpc.analysis.records import Run, read_run
from matsci_hpc.analysis.study_picture import dress
from matsci_hpc.cli import plain_errors
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.confusion import Confusion
from matsci_hpc.errors import UserInputError
from matsci_hpc.point_groups import FAMILIES, family, order

TARGET = "point_group"
LINES = 5
"""Lines of metrics.jsonl that make one of course.csv."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a checkpoint knew.

    Attributes:
        samples_seen: clouds that it had been trained on.
        classes: confusion of the point groups.
        families: the same of their families.
        operations: the same of the numbers of operations that groups have.
    """

    samples_seen: int
    classes: Confusion
    families: Confusion
    operations: Confusion


def read(path: Path, run: Path, graphs: int) -> Moment:
    """One evaluation.

    Args:
        path: of the file.
        run: that it is of.
        graphs: that the run learned from in a step.

    Raises:
        UserInputError: it is of another run, or has no confusion of point groups.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("model") != run.resolve().name:
        raise UserInputError(f"{path}: is of {record.get('model')}, not of {run}")
    classes = Confusion.from_json(record.get("confusion", {}).get(TARGET))
    if classes is None:
        raise UserInputError(f"{path}: holds no confusion of {TARGET}; make it with matsci-hpc evaluate --data")
    families = classes.folded([family(name) for name in classes.classes], FAMILIES)
    numbers = [order(name) for name in classes.classes]
    operations = classes.folded(list(map(str, numbers)), list(map(str, sorted(set(numbers)))))
    return Moment(record["step"] * graphs, classes, families, operations)


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


def pair_rows(moments: Iterable[Moment], what: Literal["families", "operations"], title: str) -> list[dict[str, Any]]:
    """A line for each pair and moment: clouds of the one that were named as of the other.

    Args:
        moments: when.
        what: pairs of families, or of numbers of operations.
        title: of the column of the true ones.
    """
    return [
        {"samples_seen": moment.samples_seen, title: true, "named": named, "clouds": clouds}
        for moment in moments
        for folded in (getattr(moment, what),)
        for true, row in zip(folded.classes, folded.counts, strict=True)
        for named, clouds in zip(folded.classes, row, strict=True)
    ]


def course_rows(run: Run) -> list[dict[str, Any]]:
    """The course of the training: means over `LINES` lines of metrics.jsonl, and evaluations where they were made."""
    evaluated = {line["step"]: line for line in run.evaluations if line["split"] == "val"}
    rows = []
    for start in range(0, len(run.steps) - LINES + 1, LINES):
        lines = run.steps[start : start + LINES]
        last = lines[-1]
        held_out = evaluated.get(last["step"])
        rows.append(
            {
                "samples_seen": last["samples_seen"],
                "learning_rate": f"{last['lr']:.6g}",
                "loss": f"{fmean(line['loss'] for line in lines):.5f}",
                "gradient_norm": f"{fmean(line['grad_norm'] for line in lines):.5f}",
                "graphs_per_s": f"{fmean(line['graphs_per_s'] for line in lines):.1f}",
                "spikes": sum(line["step"] <= last["step"] for line in run.spikes),
                "held_out_loss": "" if held_out is None else f"{held_out['loss']:.5f}",
                "held_out_accuracy": "" if held_out is None else held_out["metrics"][TARGET]["accuracy"],
            }
        )
    return rows


def draw(moments: list[Moment], path: Path) -> None:
    """On the left accuracy by class over the samples seen, a line for each family; on the right the last confusion."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    last = moments[-1]
    for place, (name, clouds) in enumerate(zip(last.families.classes, last.families.samples, strict=True)):
        if not clouds:
            continue
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
    known = read_run(run)
    graphs = load_config(TrainConfig, run / "config.yaml").batch.graphs
    if graphs is None:
        raise UserInputError(f"{run}: its steps are of no fixed number of clouds")
    moments = sorted((read(path, run, graphs) for path in sources), key=lambda moment: moment.samples_seen)
    out.mkdir(parents=True, exist_ok=True)
    write(class_rows(moments), out / "by_class.csv")
    write(pair_rows(moments, "families", "family"), out / "families.csv")
    write(pair_rows(moments, "operations", "operations"), out / "operations.csv")
    write(course_rows(known), out / "course.csv")
    draw(moments, out / "learning.png")
    print(out / "learning.png")


if __name__ == "__main__":
    with plain_errors():
        main()
