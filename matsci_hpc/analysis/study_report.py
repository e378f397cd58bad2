"""The report of a scaling study: one HTML page that needs nothing else, and the same as Markdown, CSV and PNG."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc import __version__
from matsci_hpc.analysis.page import asset, plotly_scripts, templates
from matsci_hpc.analysis.study_figures import plots
from matsci_hpc.analysis.study_picture import picture
from matsci_hpc.analysis.study_tables import sheets
from matsci_hpc.analysis.study_text import laws_csv, markdown, points_csv
from matsci_hpc.analysis.words import number
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.export import write_extra_p
from matsci_hpc.scaling.study import Study
from matsci_hpc.scaling.table_files import write_table
from matsci_hpc.whole_files import file_checksum, output_error, write_atomic


@dataclass(frozen=True)
class Written:
    """Where the report is."""

    page: Path
    files: tuple[Path, ...]
    """All of them, the page first."""


def write_study_report(study: Study, out: Path, provenance: Mapping[str, object] | None = None) -> Written:
    """Write report.html and the files beside it. The same study gives the same bytes.

    Args:
        study: what was found.
        out: folder, made if it is not there; files of the same names are replaced.
        provenance: what else is to be said of where the numbers come from.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    title = f"Scaling of {Path(study.table.origin).name}"
    known = {**_provenance(study), **(provenance or {})}
    texts = {
        "report.html": render(title, study, known),
        "report.md": markdown(title, study.notes, sheets(study), known),
        "efficiency.csv": points_csv(study),
        "laws.csv": laws_csv(study),
    }
    for name, text in texts.items():
        # A lone surrogate, legal in JSON and in file names, has no UTF-8 form.
        write_atomic(out / name, text.encode(errors="replace"))
    write_atomic(out / "scaling.png", picture(study))
    write_table(out / "measurements.csv", study.table)
    write_extra_p(out / "extra_p.jsonl", tuple(each.series for each in study.findings))
    names = (*texts, "scaling.png", "measurements.csv", "extra_p.jsonl")
    return Written(out / "report.html", tuple(out / name for name in names))


def render(title: str, study: Study, provenance: Mapping[str, object]) -> str:
    """Make the whole page."""
    scripts = plotly_scripts()
    drawn = {f"chart-{index}": plot for index, plot in enumerate(plots(study))}
    ranks = [int(count) for each in study.findings for count in each.series.ranks]
    return (
        templates()
        .get_template("sheets_report.html.j2")
        .render(
            title=title,
            state=f"{len(study.findings)} series, {min(ranks)} to {max(ranks)} ranks",
            about=f"{number(len(study.table.rows))} measurements.",
            beside="efficiency.csv and laws.csv",
            verdicts=[],
            notes=study.notes,
            sheets=sheets(study),
            plots=drawn,
            figures={name: plot.figure for name, plot in drawn.items()},
            provenance=provenance,
            version=__version__,
            style=asset("report.css"),
            scripts=scripts.texts,
            script_hashes=scripts.hashes,
        )
    )


def _provenance(study: Study) -> dict[str, object]:
    import numpy as np
    import scipy

    found: dict[str, object] = {"measurements": study.table.origin}
    try:
        found["checksum (XXH3)"] = file_checksum(Path(study.table.origin))
    except OSError as error:
        raise UserInputError(f"{study.table.origin}: cannot be read: {error.strerror}") from None
    found["rows"] = len(study.table.rows)
    details: dict[str, list[str]] = {}
    for row in study.table.rows:
        for name, value in row.details.items():
            if value and value not in (seen := details.setdefault(name, [])):
                seen.append(value)
    if study.table.common:
        found["labels of all series"] = study.table.common
    if details:
        found["details"] = {
            name: values[0] if len(values) == 1 else f"{len(values)} values" for name, values in details.items()
        }
    found["matsci-hpc"] = __version__
    return found | {"numpy": np.__version__, "scipy": scipy.__version__}
