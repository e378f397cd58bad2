"""The report of a scaling study: one HTML page that needs nothing else, and the same as Markdown, CSV and PNG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc import __version__
from matsci_hpc.analysis.page import Words, sheet_page
from matsci_hpc.analysis.plain_text import markdown
from matsci_hpc.analysis.sheet import Sheet
from matsci_hpc.analysis.study_courses import course_picture, course_plots, course_sheet, kinds_of
from matsci_hpc.analysis.study_figures import Plot, plots
from matsci_hpc.analysis.study_picture import picture
from matsci_hpc.analysis.study_tables import sheets
from matsci_hpc.analysis.study_text import laws_csv, points_csv
from matsci_hpc.analysis.words import number
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.export import write_extra_p
from matsci_hpc.scaling.study import Study
from matsci_hpc.scaling.study_courses import Course, dynamics_csv, loss_csv
from matsci_hpc.scaling.table_files import write_table
from matsci_hpc.whole_files import file_checksum, output_error, write_atomic


@dataclass(frozen=True)
class Written:
    """Where the report is."""

    page: Path
    files: tuple[Path, ...]
    """All of them, the page first."""


def write_study_report(
    study: Study, out: Path, provenance: Mapping[str, object] | None = None, courses: Sequence[Course] = ()
) -> Written:
    """Write report.html and the files beside it. The same study gives the same bytes.

    Args:
        study: what was found.
        out: folder, made if it is not there; files of the same names are replaced.
        provenance: what else is to be said of where the numbers come from.
        courses: of the losses of its runs, where it is about training.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    known = {**_provenance(study), **(provenance or {})}
    kinds = kinds_of(courses)
    content = Content(
        title=f"{'Scaling' if study.findings else 'Losses'} of {Path(study.table.origin).name}",
        sheets=[*sheets(study), *([course_sheet(kinds)] if kinds else [])],
        plots=[*plots(study), *course_plots(kinds)],
    )
    texts = {
        "report.html": render(content, study, known),
        "report.md": markdown(content.title, study.notes, content.sheets, known),
    }
    pictures = {}
    if study.findings:
        texts |= {"efficiency.csv": points_csv(study), "laws.csv": laws_csv(study)}
        pictures["scaling.png"] = picture(study)
    if kinds:
        texts |= {"loss.csv": loss_csv(courses), "dynamics.csv": dynamics_csv(courses)}
        pictures["loss.png"] = course_picture(kinds)
    for name, text in texts.items():
        # A lone surrogate, legal in JSON and in file names, has no UTF-8 form.
        write_atomic(out / name, text.encode(errors="replace"))
    for name, pixels in pictures.items():
        write_atomic(out / name, pixels)
    write_table(out / "measurements.csv", study.table)
    names = [*texts, *pictures, "measurements.csv"]
    if study.findings:
        write_extra_p(out / "extra_p.jsonl", tuple(each.series for each in study.findings))
        names.append("extra_p.jsonl")
    return Written(out / "report.html", tuple(out / name for name in names))


@dataclass(frozen=True)
class Content:
    """What the report shows."""

    title: str
    sheets: list[Sheet]
    plots: list[Plot]


def render(content: Content, study: Study, provenance: Mapping[str, object]) -> str:
    """Make the whole page."""
    ranks = [int(count) for each in study.findings for count in each.series.ranks]
    scaling = f"{len(study.findings)} series, {min(ranks)} to {max(ranks)} ranks" if ranks else ""
    said = Words(
        title=content.title,
        state=scaling or "courses of losses; no two numbers of ranks to compare",
        subtitle=f"{number(len(study.table.rows))} measurements.",
        notes=study.notes,
        beside="the CSV files",
    )
    return sheet_page(said, content.sheets, content.plots, provenance)


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
