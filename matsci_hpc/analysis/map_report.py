"""A map of embeddings with the separation in numbers: one HTML page, and the same as PNG, CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matsci_hpc
from matsci_hpc.analysis.map_colors import ClassColoring, Coloring, colorings
from matsci_hpc.analysis.map_data import Points, read_points
from matsci_hpc.analysis.map_page import Map, render
from matsci_hpc.analysis.map_picture import picture
from matsci_hpc.analysis.projection import choose_method, project, standardised
from matsci_hpc.analysis.separation import require_sklearn, separation
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.spreadsheet import no_formula
from matsci_hpc.versions import installed
from matsci_hpc.whole_files import output_error, write_atomic

FILES = ("map.html", "map.png", "map.json", "map.csv", "separation.csv")
PACKAGES = ("numpy", "scikit-learn", "umap-learn", "numba")


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How a map is made.

    Attributes:
        method: `auto`, `umap` or `pca`.
        seed: of UMAP, of the folds of the probes, of samples drawn.
        neighbors: of a point that UMAP looks at.
        k: neighbours for the purity.
        folds: of the probes.
        numbers: whether the separation is measured.
    """

    method: str = "auto"
    seed: int = 0
    neighbors: int = 15
    k: int = 10
    folds: int = 5
    numbers: bool = True


@dataclass(frozen=True, slots=True)
class Written:
    """Where the map is, and what it says in a few lines."""

    page: Path
    summary: str


def write_map(folders: Sequence[Path], out: Path, settings: MapSettings) -> Written:
    """Make the map of embeddings and write it. The same embeddings and settings give the same files.

    Args:
        folders: that `matsci-hpc embed` wrote.
        out: folder of the results, made if it is not there; files of the same names are replaced.
        settings: how.

    Raises:
        UserInputError: no embeddings, too few of them, or the folder cannot be written.
        MachineError: a package is missing, or the disk is full or failing.
    """
    if settings.numbers:
        require_sklearn()
    groups = read_points(folders)
    if min(len(points) for points in groups) < 3:
        raise UserInputError("a map needs three samples at least; embed more")
    method = choose_method(settings.method, min(len(points) for points in groups))
    titles = _titles(groups)
    maps = [
        Map(
            title,
            points,
            project(standardised(points.embedding), method, seed=settings.seed, neighbors=settings.neighbors),
            separation(points, k=settings.k, folds=settings.folds, seed=settings.seed) if settings.numbers else None,
        )
        for title, points in zip(titles, groups, strict=True)
    ]
    kinds = colorings(groups)
    record = _record(maps, settings, method)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    write_atomic(out / "map.json", (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(out / "map.csv", _points_csv(maps).encode(errors="replace"))
    write_atomic(out / "separation.csv", _separation_csv(maps).encode(errors="replace"))
    write_atomic(out / "map.png", picture(titles, [each.projection for each in maps], _rows(kinds)))
    page = render(
        maps, kinds, seed=settings.seed, k=settings.k, folds=settings.folds, provenance=_provenance(record, folders)
    )
    write_atomic(out / "map.html", page.encode(errors="replace"))
    return Written(out / "map.html", summary(maps))


def summary(maps: Sequence[Map]) -> str:
    """The separation in a few lines for a terminal."""
    lines = []
    for each in maps:
        lines.append(f"{each.title}: {len(each.points):,} samples by {each.projection.method}")
        found = each.separation
        for row in found.classes if found else ():
            silhouette = "" if row.silhouette is None else f", silhouette {row.silhouette:.3f}"
            probe = "" if row.probe is None else f", linear probe {row.probe.accuracy:.3f} ({row.probe.by_chance:.3f})"
            lines.append(f"  {row.label}: k-NN purity {row.purity:.3f} ({row.purity_by_chance:.3f}){silhouette}{probe}")
        for line in found.numbers if found else ():
            unit = f" {line.unit}" if line.unit else ""
            lines.append(
                f"  {line.label}: linear probe R2 {line.r2:.3f}, MAE {line.mae:.4g} ({line.mae_of_mean:.4g}){unit}"
            )
    if any(each.separation for each in maps):
        lines.append("in brackets: by chance, or by predicting the mean; all of the embeddings, not of the picture")
    return "\n".join(lines)


def _titles(groups: Sequence[Points]) -> list[str]:
    """A name for each encoder, with the folder where that is not enough."""
    plain = [points.encoder.title for points in groups]
    return [
        title if plain.count(title) == 1 else f"{title} ({points.folders[0]})"
        for title, points in zip(plain, groups, strict=True)
    ]


def _rows(kinds: Sequence[Coloring]) -> list[Coloring]:
    """What the picture shows: data sets, unless there is only one, and the first target."""
    several = not isinstance(kinds[0], ClassColoring) or len(kinds[0].names) > 1
    return list(kinds[:2]) if several or len(kinds) == 1 else list(kinds[1:2])


def _record(maps: Sequence[Map], settings: MapSettings, method: str) -> dict[str, Any]:
    """The content of map.json."""
    return {
        "format": "matsci-hpc map",
        "format_version": 1,
        "settings": asdict(settings) | {"method": method},
        "measured_on": "standardised embeddings, not the map",
        "maps": [
            {
                "title": each.title,
                "encoder": each.points.encoder.model_dump(mode="json", exclude_none=True),
                "samples": len(each.points),
                "data_sets": [data.model_dump(mode="json") for data in each.points.described],
                "axes": list(each.projection.axes),
                "notes": list(each.points.notes),
                "separation": each.separation.to_json() if each.separation else None,
            }
            for each in maps
        ],
    }


def _provenance(record: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    packages = {name: version(name) for name in PACKAGES if installed(name)}
    return {"folders": [str(folder) for folder in folders], "settings": record["settings"], "packages": packages} | {
        "matsci-hpc": matsci_hpc.__version__
    }


def _points_csv(maps: Sequence[Map]) -> str:
    """A line for each point of each map."""
    targets = list(dict.fromkeys(name for each in maps for name in each.points.targets))
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([no_formula(cell) for cell in ("encoder", "data_set", "id", "formula", "x", "y", *targets)])
    for each in maps:
        points = each.points
        columns = [_cells(points, name) for name in targets]
        for number, (x, y) in enumerate(each.projection.place.tolist()):
            row = [each.title, points.data_sets[points.data_set[number]], points.ids[number], points.formulas[number]]
            row += [f"{x:.6g}", f"{y:.6g}", *(column[number] for column in columns)]
            table.writerow([no_formula(cell) for cell in row])
    return stream.getvalue()


def _cells(points: Points, name: str) -> list[str]:
    target = points.targets.get(name)
    if target is None:
        return [""] * len(points)
    if target.is_class:
        return [target.names[label] if label >= 0 else "" for label in target.labels().tolist()]
    return ["" if value != value else f"{value:.7g}" for value in target.values.tolist()]  # noqa: PLR0124 - NaN


def _separation_csv(maps: Sequence[Map]) -> str:
    """A line for each number, so that every label has its own measures."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["encoder", "label", "samples", "measure", "value", "spread", "without_structure", "unit"])
    for each in maps:
        found = each.separation
        rows: list[tuple[Any, ...]] = []
        for row in found.classes if found else ():
            rows.append((row.label, row.samples, "knn_purity", row.purity, None, row.purity_by_chance, None))
            if row.silhouette is not None:
                rows.append((row.label, row.samples, "silhouette", row.silhouette, None, 0.0, None))
            if (probe := row.probe) is not None:
                measured: list[tuple[Any, ...]] = [("accuracy", probe.accuracy, probe.spread, probe.by_chance)]
                measured.append(("balanced_accuracy", probe.balanced_accuracy, None, 1 / probe.classes))
                rows += [(row.label, probe.samples, f"probe_{name}", *cells, None) for name, *cells in measured]
        for line in found.numbers if found else ():
            rows += [
                (line.label, line.samples, "probe_r2", line.r2, None, 0.0, None),
                (line.label, line.samples, "probe_mae", line.mae, line.spread, line.mae_of_mean, line.unit),
            ]
        for cells in rows:
            table.writerow([no_formula("" if cell is None else cell) for cell in (each.title, *cells)])
    return stream.getvalue()
