"""A picture of what a data set holds: atoms, edges and every target, split by split."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.histograms import Histogram, histograms
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.whole_files import appearing

BINS = 30
COLORS = ("#3566a8", "#e08a2e", "#4a9a62", "#b0485a", "#7a62a6", "#5aa3b5", "#8c7a52", "#777777")
MOST_CLASSES = 16


def plot_data_set(folder: Path, path: Path) -> None:
    """Draw the distributions of a data set.

    Args:
        folder: of the data set.
        path: of the PNG file.

    Raises:
        UserInputError: the name does not end in .png, the file cannot be written, or the data set is damaged.
        MachineError: a shard is missing or damaged.
    """
    if path.suffix.lower() != ".png":
        raise UserInputError(f"{path}: --plot writes a PNG; give the name of a file that ends in .png")
    data = DataSet(folder)
    made = histograms(data, BINS)
    # Not pyplot: a figure of its own needs no display and leaves no state behind.
    from matplotlib.figure import Figure

    columns = min(3, len(made))
    rows = math.ceil(len(made) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows + 0.7), dpi=150, layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    splits = [name for name, count in data.manifest.splits.items() if count]
    shown = [list(data.manifest.splits).index(name) for name in splits]
    for axis, histogram in zip(axes, made, strict=False):
        _panel(axis, histogram, shown)
    for axis in axes[len(made) :]:
        axis.set_visible(False)
    handles = [_patch(number) for number in range(len(splits))]
    names = [f"{name}  {data.manifest.splits[name]:,}" for name in splits]
    figure.legend(handles, names, loc="outside upper right", ncols=min(len(names), 6), frameon=False, fontsize=9)
    figure.suptitle(
        f"{folder.resolve().name}: {data.manifest.counts.samples:,} samples", x=0.02, ha="left", fontsize=12
    )
    with appearing(path) as temporary, temporary.open("wb") as file:
        figure.savefig(file, format="png")


def _panel(axis: Any, histogram: Histogram, splits: list[int]) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, length=3)
    axis.grid(axis="x" if histogram.classes else "y", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    unit = f" ({histogram.unit})" if histogram.unit else ""
    title = {"atoms": "atoms per sample", "edges": "edges per sample"}.get(histogram.name, f"{histogram.name}{unit}")
    axis.set_title(title, loc="left", fontsize=10)
    if histogram.classes:
        _classes(axis, histogram, splits)
    else:
        _numbers(axis, histogram, splits)


def _numbers(axis: Any, histogram: Histogram, splits: list[int]) -> None:
    """Share of each split in every bin: curves that lie on each other are splits alike, however large they are."""
    edges = histogram.edges
    if len(edges) == 2 and edges[0] == edges[1]:
        edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
    for place, number in enumerate(splits):
        share = histogram.counts[number] / max(histogram.counts[number].sum(), 1) * 100
        color = COLORS[place % len(COLORS)]
        if place == 0:
            axis.stairs(share, edges, fill=True, color=color, alpha=0.25)
        axis.stairs(share, edges, color=color, linewidth=1.3)
    axis.set_ylabel("% of the split", fontsize=8)
    axis.set_ylim(bottom=0)
    if histogram.whole and len(edges) > 2 and edges[-1] - edges[-2] > 2 * (edges[1] - edges[0]):
        axis.set_xscale("log")


def _classes(axis: Any, histogram: Histogram, splits: list[int]) -> None:
    """Samples of each class, splits end to end, the most frequent class on top."""
    order = np.argsort(-histogram.counts.sum(axis=0), kind="stable")[:MOST_CLASSES]
    left = np.zeros(len(order))
    for place, number in enumerate(splits):
        counts = histogram.counts[number][order]
        axis.barh(range(len(order)), counts, left=left, color=COLORS[place % len(COLORS)], height=0.75)
        left += counts
    axis.set_yticks(range(len(order)), [histogram.classes[k] for k in order], fontsize=8 if len(order) <= 8 else 6)
    axis.invert_yaxis()
    axis.set_xlabel("samples", fontsize=8)
    if len(order) < len(histogram.classes):
        axis.set_title(
            f"{histogram.name}: {len(order)} most frequent of {len(histogram.classes)}", loc="left", fontsize=10
        )


def _patch(place: int) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=COLORS[place % len(COLORS)])
