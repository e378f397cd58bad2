"""The report of a scaling study as Markdown and as CSV."""

import csv
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from matsci_hpc.analysis.study_tables import Sheet
from matsci_hpc.scaling.fitting import Interval
from matsci_hpc.scaling.laws import LawFit
from matsci_hpc.scaling.spreadsheet import no_formula
from matsci_hpc.scaling.study import Finding, Study


def markdown(
    title: str,
    notes: Sequence[str],
    sheets: Sequence[Sheet],
    provenance: Mapping[str, object],
    verdicts: Sequence[str] = (),
) -> str:
    """The tables of a report as Markdown; names cannot bring in markup."""
    lines = [f"# {_plain(title)}", ""]
    lines += [f"- {_plain(sentence)}" for sentence in verdicts] + [""] * bool(verdicts)
    lines += [line for note in notes for line in (f"> {_plain(note)}", "")]
    for sheet in sheets:
        lines += [f"## {sheet.title}", "", _plain(sheet.caption), ""]
        lines.append("| " + " | ".join(_plain(name) for name in sheet.columns) + " |")
        places = range(len(sheet.columns))
        lines.append("|" + "|".join(" --- " if place in sheet.texts else " ---: " for place in places) + "|")
        for row in sheet.rows:
            cells = [_plain(cell.text) + (f" ({_plain(cell.remark)})" if cell.remark else "") for cell in row]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["## Provenance", ""]
    lines += [f"- {_plain(name)}: {_plain(str(value))}" for name, value in provenance.items()]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no mark-up, on one line."""
    return re.sub(r"([\\`*_{}\[\]|~!#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def points_csv(study: Study) -> str:
    """One line for each rank count of each series, in full precision; labels as columns."""
    names = study.table.label_names
    header = [*names, "scaling", "ranks", "nodes", "repeats", "base_ranks", "unit"]
    for name in ("throughput", "speedup", "efficiency", "karp_flatt"):
        header += [name, f"{name}_low", f"{name}_high"]
    return _csv([*header, "hours", "hours_unit"], _point_lines(study))


def _point_lines(study: Study) -> Iterator[list[object]]:
    for each in study.findings:
        for point in each.efficiency.points:
            line: list[object] = [value for _, value in each.series.labels]
            line += [each.series.scaling, point.ranks, point.nodes, point.repeats, each.efficiency.base_ranks]
            line.append(each.series.unit)
            for estimate in (point.throughput, point.speedup, point.efficiency, point.karp_flatt):
                line += [estimate.value, estimate.low, estimate.high] if estimate else [None] * 3
            yield [*line, point.node_hours, each.efficiency.hours_unit]


def laws_csv(study: Study) -> str:
    """One line for each law of each series."""
    header = [*study.table.label_names, "scaling", "law"]
    for name in ("rate", "sigma", "kappa"):
        header += [name, f"{name}_low", f"{name}_high", f"{name}_standard_error"]
    header += ["spread", "aicc", "held_out_ranks", "held_out_predicted", "held_out_measured", "held_out_error"]
    header += ["peak_ranks", "peak_low", "peak_high"]
    return _csv(header, (_law_line(each, fit) for each in study.findings for fit in each.laws.fits))


def _law_line(finding: Finding, fit: LawFit) -> list[object]:
    line: list[object] = [value for _, value in finding.series.labels]
    line += [finding.series.scaling, fit.law]
    errors = fit.fit.standard_errors
    for place, name in enumerate(("rate", "sigma", "kappa")):
        known, interval = fit.parameters.get(name), fit.intervals.get(name)
        line += [known, *(_ends(interval)), None if known is None or errors is None else float(errors[place])]
    line += [fit.fit.spread, fit.fit.aicc]
    held = fit.held_out
    line += [held.prediction.ranks, held.prediction.throughput, held.measured, held.error] if held else [None] * 4
    return [*line, fit.peak_ranks, *_ends(fit.peak)]


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _csv(header: Sequence[str], lines: Iterator[list[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(no_formula, header))
    writer.writerows(map(no_formula, line) for line in lines)
    return stream.getvalue()
