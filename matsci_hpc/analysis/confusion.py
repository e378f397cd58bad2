"""Which classes a model takes for which, as maps of colours, and point groups by their families."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matsci_hpc.analysis.chart import HELD_OUT, Chart
from matsci_hpc.analysis.plotting import AXIS, BLUE, empty_figure, label, rounded
from matsci_hpc.analysis.records import Record, Run, as_mapping
from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.analysis.words import number, percent, value_text
from matsci_hpc.confusion import Confusion
from matsci_hpc.errors import UserInputError

FEW_CLASSES = 12
"""Up to so many fit a map half as wide as the page, with numbers in it; more point groups are also shown by family."""
MOST_LABELS = 64
"""Names along an axis; of more classes only every second or third one is named there, and all are when hovered."""


@dataclass(frozen=True, slots=True)
class Family:
    """How well the point groups of a family are named.

    Attributes:
        name: of the family.
        groups: classes of it.
        samples: of these classes.
        group_right: share of them that were named right; None without samples.
        family_right: share of them that were named a group of this family.
    """

    name: str
    groups: tuple[str, ...]
    samples: int
    group_right: float | None
    family_right: float | None


def confusion_charts(run: Run) -> list[Chart]:
    """For each target, the last confusion on record; of many point groups, first that of families."""
    found: list[Chart] = []
    for target, (line, confusion) in _latest(run).items():
        where = f"{target} on {value_text(line.get('split'))}, step {number(line['step'])}"
        if (groups := _families_of(confusion)) is not None:
            folded = confusion.folded(groups, _families())
            found += _chart("Confusion of families of point groups", where, folded)
        found += _chart("Confusion of classes", where, confusion)
    return found


def families(run: Run) -> dict[str, list[Family]]:
    """Of each target of many point groups, by its last confusion."""
    found = {}
    for target, (_, confusion) in _latest(run).items():
        if (groups := _families_of(confusion)) is not None:
            found[target] = family_rows(confusion, groups)
    return found


def family_rows(confusion: Confusion, groups: Sequence[str]) -> list[Family]:
    """Accuracy by family.

    Args:
        confusion: of point groups.
        groups: family of each of its classes.
    """
    folded = confusion.folded(groups, _families())
    rows = []
    for name, samples, right in zip(folded.classes, folded.samples, folded.right, strict=True):
        own = [each == name for each in groups]
        exact = sum(count for count, mine in zip(confusion.right, own, strict=True) if mine)
        members = tuple(each for each, mine in zip(confusion.classes, own, strict=True) if mine)
        shares = (exact / samples, right / samples) if samples else (None, None)
        rows.append(Family(name, members, samples, *shares))
    return rows


def family_sheets(run: Run) -> list[Sheet]:
    """The same as tables."""
    found = []
    latest, columns = _latest(run), ("family", "samples", "group right", "family right")
    for target, rows in families(run).items():
        line, _ = latest[target]
        caption = (
            f"{target} on {value_text(line.get('split'))}, at step {number(line['step'])}. The family of a sample is "
            "right if any group of it was named."
        )
        cells = tuple(
            (
                Cell(row.name, ", ".join(row.groups)),
                Cell(number(row.samples)),
                Cell(percent(row.group_right)),
                Cell(percent(row.family_right)),
            )
            for row in rows
        )
        found.append(Sheet("Point groups by family", caption, columns, cells))
    return found


def _latest(run: Run) -> dict[str, tuple[Record, Confusion]]:
    """Each confusion of the last line of evaluations that has one, with this line; earlier versions wrote none."""
    line = next((line for line in reversed(run.evaluations) if as_mapping(line.get("confusion"))), {})
    known = {name: Confusion.from_json(value) for name, value in as_mapping(line.get("confusion")).items()}
    return {name: (line, confusion) for name, confusion in known.items() if confusion is not None}


def _families() -> tuple[str, ...]:
    from matsci_hpc.point_groups import FAMILIES  # with numpy, which only this needs

    return FAMILIES


def _families_of(confusion: Confusion) -> tuple[str, ...] | None:
    """Family of each class; None where there are few classes, or some are no point groups."""
    if len(confusion.classes) <= FEW_CLASSES:
        return None
    from matsci_hpc.point_groups import family

    try:
        return tuple(map(family, confusion.classes))
    except UserInputError:
        return None


def _chart(title: str, where: str, confusion: Confusion) -> Iterator[Chart]:
    """A chart, or none where there is nothing to confuse."""
    classes = len(confusion.classes)
    if classes < 2 or not any(confusion.samples):
        return
    few = classes <= FEW_CLASSES
    caption = f"{where}: share of the samples of each true class (row) that were named each class (column)"
    height = 130 + (32 if few else max(8, min(16, 800 // classes))) * classes
    yield Chart(HELD_OUT, title, caption, _map(confusion, few=few), wide=not few, height=height)


def _map(confusion: Confusion, *, few: bool) -> Record:
    figure = empty_figure()
    classes = len(confusion.classes)
    # Cells stand at numbers, not at names: plotly would merge classes whose names are equal once shortened. The first
    # class is on top.
    columns, rows = list(range(classes)), list(range(classes - 1, -1, -1))
    trace = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": [[rounded(share) for share in row] for row in confusion.shares],
        "zmin": 0.0,
        "zmax": 1.0,
        # Rare confusions are what there is to see, so the colour rises quickly at first.
        "colorscale": [[0.0, "#F4F5F6"], [0.02, "#DCE9F3"], [0.2, "#8FBCDD"], [1.0, BLUE]],
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": ".0%"},
        "hovertext": _hovers(confusion),
        "hoverinfo": "text",
    }
    if few:
        trace |= {
            "text": [[f"{100 * share:.0f}" if share else "" for share in row] for row in confusion.shares],
            "texttemplate": "%{text}",
            "textfont": {"size": 10},
        }
    figure["data"] = [trace]
    every = -(-classes // MOST_LABELS)
    names = [f"{label(name)} " for name in confusion.classes]
    ticks = {"tickfont": {"size": 11 if classes <= 32 else 8}, "automargin": True, "showgrid": False}
    figure["layout"] |= {
        "hovermode": "closest",
        "xaxis": {
            **AXIS,
            **ticks,
            "title": {"text": "named", "standoff": 6},
            "tickvals": columns[::every],
            "ticktext": names[::every],
            "tickangle": -90,
            "range": [-0.5, classes - 0.5],
        },
        "yaxis": {
            **AXIS,
            **ticks,
            "title": {"text": "true", "standoff": 6},
            "tickvals": rows[::every],
            "ticktext": names[::every],
            "range": [-0.5, classes - 0.5],
        },
    }
    return figure


def _hovers(confusion: Confusion) -> list[list[str]]:
    """What is said of each cell; nothing of empty ones, which are most."""
    names = [label(name) for name in confusion.classes]
    found = []
    for true, row, shares, samples in zip(names, confusion.counts, confusion.shares, confusion.samples, strict=True):
        found.append(
            [
                f"{true} named {named}: {percent(share)}, {number(count)} of {number(samples)}" if count else ""
                for named, count, share in zip(names, row, shares, strict=True)
            ]
        )
    return found
