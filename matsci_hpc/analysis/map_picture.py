"""The maps as one PNG, for a slide or a paper: coloured by data set, and below by the first target."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from matsci_hpc.analysis.map_colors import (
    ABSENT,
    COLORS,
    MARKS,
    OTHER,
    RAMP,
    ClassColoring,
    Coloring,
    NumberColoring,
)
from matsci_hpc.analysis.projection import Projection

_MARKERS = dict(zip(MARKS, ("o", "s", "^", "D"), strict=True))
_NAME_LENGTH = 40
MOST_IN_LEGEND = 14


def picture(titles: Sequence[str], places: Sequence[Projection], rows: Sequence[Coloring]) -> bytes:
    """The PNG: a column for each map, a row for each colouring.

    Args:
        titles: of the maps.
        places: of their points.
        rows: what to colour by.
    """
    # Not pyplot: a figure of its own needs no display and leaves no state behind.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(places) + 2.6, 4.3 * len(rows) + 0.3), dpi=150, layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(rows), len(places), squeeze=False))
    for row, coloring in enumerate(rows):
        for column, projection in enumerate(places):
            axis = axes[row, column]
            _dress(axis, projection, _short(titles[column]) if row == 0 else "")
            if isinstance(coloring, ClassColoring):
                _classes(axis, projection, coloring, column)
            else:
                drawn = _numbers(axis, projection, coloring, column)
        if isinstance(coloring, ClassColoring):
            _legend(axes[row, -1], coloring)
        else:
            figure.colorbar(drawn, ax=axes[row, :].tolist(), label=_short(coloring.title), shrink=0.8, extend="both")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _dress(axis: Any, projection: Projection, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(projection.axes[0], fontsize=8)
    axis.set_ylabel(projection.axes[1], fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_aspect("equal", adjustable="datalim")
    axis.spines[["top", "right"]].set_visible(False)


def _size(points: int) -> float:
    """Of a mark, in square points."""
    return float(np.clip(12_000 / max(points, 1), 2.0, 22.0))


def _classes(axis: Any, projection: Projection, coloring: ClassColoring, column: int) -> None:
    numbers, place = coloring.numbers[column], projection.place
    size = _size(len(place))
    for number in (-1, len(coloring.names), *range(len(coloring.names))):
        there = numbers == number
        if there.any():
            color, mark = _look(number, len(coloring.names))
            axis.scatter(
                *place[there].T, s=size, c=color, marker=_MARKERS[mark], linewidths=0, alpha=0.65, rasterized=True
            )


def _numbers(axis: Any, projection: Projection, coloring: NumberColoring, column: int) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    values, place = coloring.values[column], projection.place
    known = np.isfinite(values)
    axis.scatter(*place[~known].T, s=_size(len(place)), c=ABSENT, linewidths=0)
    return axis.scatter(
        *place[known].T,
        s=_size(len(place)),
        c=values[known],
        cmap=LinearSegmentedColormap.from_list("ramp", RAMP),
        vmin=coloring.low,
        vmax=coloring.high,
        linewidths=0,
        alpha=0.8,
    )


def _look(number: int, names: int) -> tuple[str, str]:
    if number < 0:
        return ABSENT, MARKS[0]
    if number == names:
        return OTHER, MARKS[0]
    return COLORS[number % len(COLORS)], MARKS[number // len(COLORS)]


def _legend(axis: Any, coloring: ClassColoring) -> None:
    from matplotlib.lines import Line2D

    shown = coloring.names[:MOST_IN_LEGEND]
    handles = []
    for number, name in enumerate(shown):
        color, mark = _look(number, len(coloring.names))
        handles.append(Line2D([], [], linestyle="none", marker=_MARKERS[mark], color=color, label=_short(name)))
    rest = len(coloring.names) - len(shown) + coloring.others[0]
    if rest:
        handles.append(Line2D([], [], linestyle="none", label=f"and {rest} more"))
    if any((numbers < 0).any() for numbers in coloring.numbers):
        handles.append(Line2D([], [], linestyle="none", marker="o", color=ABSENT, label="not known"))
    axis.legend(
        handles=handles,
        title=_short(coloring.title),
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        alignment="left",
    )


def _short(name: str) -> str:
    """A label that matplotlib does not read as a formula."""
    short = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
    return short.replace("$", r"\$")
