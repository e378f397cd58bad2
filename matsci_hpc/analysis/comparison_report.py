"""The report of a comparison: one HTML page that needs nothing else, and the same as text, Markdown, CSV and PNG."""

from pathlib import Path

from matsci_hpc import __version__
from matsci_hpc.analysis.comparison_figures import comparison_plots
from matsci_hpc.analysis.comparison_picture import comparison_picture
from matsci_hpc.analysis.comparison_tables import PLUS_MINUS, comparison_sheets
from matsci_hpc.analysis.page import Words, sheet_page
from matsci_hpc.analysis.plain_text import markdown
from matsci_hpc.analysis.sheet import Sheet
from matsci_hpc.analysis.study_report import Written
from matsci_hpc.analysis.study_tables import MINUS, UP_TO
from matsci_hpc.analysis.words import GAP, number
from matsci_hpc.comparison.collect import points_csv, result_words
from matsci_hpc.comparison.findings import Findings
from matsci_hpc.comparison.notes import verdict_of
from matsci_hpc.scaling.study_show import aligned
from matsci_hpc.whole_files import output_error, write_atomic

IN_TERMINAL = 2
"""Tables that a terminal shows: the comparison, and the arms with their baselines."""

IN_ASCII = str.maketrans({GAP: " ", MINUS: "-", PLUS_MINUS: "+-", UP_TO: ".."})
"""What some terminals show as boxes."""


def write_comparison_report(findings: Findings, out: Path) -> Written:
    """Write report.html and the files beside it. The same records give the same bytes.

    Args:
        findings: of the comparison.
        out: folder, made if it is not there; files of the same names are replaced.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    files = {
        "report.html": render(findings).encode(errors="replace"),
        "report.md": _markdown(findings).encode(errors="replace"),
        "report.txt": f"{plain_text(findings)}\n".encode(errors="replace"),
        "comparison.csv": points_csv(findings),
        "comparison.png": comparison_picture(findings),
    }
    for name, content in files.items():
        write_atomic(out / name, content)
    return Written(out / "report.html", tuple(out / name for name in files))


def render(findings: Findings) -> str:
    """Make the whole page."""
    said = Words(
        title=_title(findings),
        state=_state(findings),
        subtitle=f"{number(len(findings.results))} complete runs.",
        notes=findings.notes,
        beside="comparison.csv, and those of every run in results.csv",
        verdicts=verdicts(findings),
    )
    return sheet_page(said, comparison_sheets(findings), comparison_plots(findings), _provenance(findings))


def verdicts(findings: Findings) -> list[str]:
    """A sentence for each metric, size and arm."""
    reference = findings.comparison.reference
    return [verdict_of(point, each, reference) for point in findings.points for each in point.against]


def plain_text(findings: Findings) -> str:
    """The tables that matter most and the verdicts, for a terminal."""
    lines = []
    for sheet in comparison_sheets(findings)[:IN_TERMINAL]:
        lines += [sheet.title, *_table(sheet), ""]
    return "\n".join([*lines, *verdicts(findings)])


def _table(sheet: Sheet) -> list[str]:
    rows = [tuple(each.text + (f" ({each.remark})" if each.remark else "") for each in row) for row in sheet.rows]
    plain = [[cell.translate(IN_ASCII) for cell in row] for row in (sheet.columns, *rows)]
    return aligned(plain, sheet.texts)


def _markdown(findings: Findings) -> str:
    sheets, known = comparison_sheets(findings), _provenance(findings)
    return markdown(_title(findings), findings.notes, sheets, known, verdicts=verdicts(findings))


def _title(findings: Findings) -> str:
    return " against ".join(findings.comparison.arms)


def _state(findings: Findings) -> str:
    sizes = [point.samples for point in findings.points]
    span = number(min(sizes)) if min(sizes) == max(sizes) else f"{number(min(sizes))} to {number(max(sizes))}"
    seeds = len(findings.comparison.seeds)
    return f"{len(findings.comparison.arms)} arms, {seeds} seed{'s' * (seeds != 1)}, {span} training samples"


def _provenance(findings: Findings) -> dict[str, object]:
    import numpy as np
    import scipy

    first = findings.results[0]
    return {
        "comparison": findings.comparison.model_dump(mode="json"),
        "every run": {each.run.name: result_words(findings.comparison, each) for each in findings.taken},
        "code of the runs": first.facts["code"],
        "data (fingerprints)": first.facts["data"],
        "matsci-hpc": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
