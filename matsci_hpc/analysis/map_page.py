"""The map as one HTML page that needs nothing else: numbers first, then the points, which tell their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matsci_hpc import __version__
from matsci_hpc.analysis import words
from matsci_hpc.analysis.map_colors import (
    ABSENT,
    COLORS,
    MARKS,
    OTHER,
    RAMP,
    ClassColoring,
    Coloring,
)
from matsci_hpc.analysis.map_data import Points
from matsci_hpc.analysis.page import Scripts, asset, templates
from matsci_hpc.analysis.projection import Projection
from matsci_hpc.analysis.separation import Separation
from matsci_hpc.loading.permutation import Permutation

MOST_POINTS = 20_000
"""Of a map in the page, so that it stays small and quick; the CSV has all of them."""


@dataclass(frozen=True, slots=True)
class Map:
    """One encoder's points, their places, and what was measured."""

    title: str
    points: Points
    projection: Projection
    separation: Separation | None


def render(
    maps: Sequence[Map], kinds: Sequence[Coloring], *, seed: int, k: int, folds: int, provenance: Mapping[str, Any]
) -> str:
    """Make the whole page.

    Args:
        maps: side by side.
        kinds: what their points can be coloured by.
        seed: of the points drawn where there are more than `MOST_POINTS`.
        k: neighbours looked at.
        folds: of the probes.
        provenance: how it was made.
    """
    scripts = Scripts([asset("map.js")])
    chosen = [_drawn(len(each.points), seed) for each in maps]
    data_sets = list(dict.fromkeys(name for each in maps for name in each.points.data_sets))
    samples = sum(len(each.points) for each in maps)
    several = f"{len(maps)} encoders" if len(maps) > 1 else "1 encoder"
    held = f"{len(data_sets)} data sets" if len(data_sets) > 1 else "1 data set"
    return (
        templates()
        .get_template("map.html.j2")
        .render(
            title="Map of embeddings",
            state=f"{held}, {several}, {words.number(samples)} embeddings",
            maps=maps,
            notes=notes(maps, chosen),
            classes=_class_rows(maps),
            numbers=_number_rows(maps),
            measured=any(each.separation for each in maps),
            k=k,
            folds=folds,
            data_sets=_data_rows(maps),
            drawing=_drawing(maps, kinds, chosen),
            provenance=provenance,
            version=__version__,
            style=asset("report.css") + asset("map.css"),
            scripts=scripts.texts,
            script_hashes=scripts.hashes,
        )
    )


def notes(maps: Sequence[Map], chosen: Sequence[Any]) -> list[str]:
    """What a reader should know before trusting numbers and picture."""
    found = list(dict.fromkeys(note for each in maps for note in each.points.notes))
    for each in maps:
        prefix = f"{each.title}: " if len(maps) > 1 else ""
        found += [prefix + note for note in (each.separation.notes if each.separation else ())]
    if len(maps) > 1 and any(each.points.samples != maps[0].points.samples for each in maps[1:]):
        found.append("The encoders have embedded different samples, so their numbers are not of the same thing.")
    for each, some in zip(maps, chosen, strict=True):
        if len(some) < len(each.points):
            found.append(
                f"{each.title}: {words.number(len(some))} of {words.number(len(each.points))} points are drawn here; "
                "map.csv has all of them."
            )
    return found


def _drawn(samples: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Points that are drawn, in a random order, so that no class lies on top of all others."""
    return Permutation(samples, seed, "map")(np.arange(min(samples, MOST_POINTS)))


def _class_rows(maps: Sequence[Map]) -> list[dict[str, Any]]:
    """A row for each label and encoder, the encoders of a label together."""
    found = [(each, row) for each in maps if each.separation for row in each.separation.classes]
    labels = list(dict.fromkeys(row.label for _, row in found))
    return [{"map": each.title, "row": row} for label in labels for each, row in found if row.label == label]


def _number_rows(maps: Sequence[Map]) -> list[dict[str, Any]]:
    found = [(each, row) for each in maps if each.separation for row in each.separation.numbers]
    labels = list(dict.fromkeys(row.label for _, row in found))
    return [{"map": each.title, "row": row} for label in labels for each, row in found if row.label == label]


def _data_rows(maps: Sequence[Map]) -> list[Any]:
    """Every data set of every map, each once."""
    found = {data.model_dump_json(): data for each in maps for data in each.points.described}
    return list(found.values())


def _drawing(maps: Sequence[Map], kinds: Sequence[Coloring], chosen: Sequence[Any]) -> dict[str, Any]:
    """What the script draws."""
    return {
        "colors": COLORS,
        "marks": MARKS,
        "other": OTHER,
        "absent": ABSENT,
        "ramp": RAMP,
        "maps": [
            {
                "title": each.title,
                "axes": each.projection.axes,
                "x": _digits(each.projection.place[some, 0]),
                "y": _digits(each.projection.place[some, 1]),
                "ids": [each.points.ids[number] for number in some.tolist()],
                "formulas": [each.points.formulas[number] for number in some.tolist()],
            }
            for each, some in zip(maps, chosen, strict=True)
        ],
        "colorings": [_coloring(each, chosen) for each in kinds],
    }


def _coloring(coloring: Coloring, chosen: Sequence[Any]) -> dict[str, Any]:
    if isinstance(coloring, ClassColoring):
        return {
            "title": coloring.title,
            "names": coloring.names,
            "counts": coloring.counts,
            "others": coloring.others,
            "numbers": [each[some].tolist() for each, some in zip(coloring.numbers, chosen, strict=True)],
        }
    return {
        "title": coloring.title,
        "low": coloring.low,
        "high": coloring.high,
        "ends": [words.number(coloring.low, 3), words.number(coloring.high, 3)],
        "values": [_digits(each[some]) for each, some in zip(coloring.values, chosen, strict=True)],
    }


def _digits(values: Any) -> list[float | None]:
    """Five digits: no eye sees more, and the file is half as long."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]
