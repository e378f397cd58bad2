"""Reports as Markdown and CSV, into which names bring neither markup nor formulas."""

import csv
import html
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from matsci_hpc.analysis.sheet import Sheet
from matsci_hpc.analysis.words import value_text
from matsci_hpc.scaling.spreadsheet import no_formula


def markdown(
    title: str,
    notes: Iterable[str],
    sheets: Iterable[Sheet],
    provenance: Mapping[str, object],
    code: Mapping[str, str] | None = None,
    verdicts: Sequence[str] = (),
) -> str:
    """The tables of a report as Markdown.

    Args:
        title: of the whole.
        notes: what a reader should know first.
        sheets: the tables.
        provenance: where the numbers come from; mappings in it become lists within the list.
        code: by heading, text that is shown as it is, such as a config.
        verdicts: the answer in sentences, before everything else.
    """
    lines = [f"# {plain(title)}", ""]
    lines += [f"- {plain(sentence)}" for sentence in verdicts] + [""] * bool(verdicts)
    lines += [line for note in notes for line in (f"> {plain(note)}", "")]
    for sheet in sheets:
        lines += [f"## {plain(sheet.title)}", ""]
        lines += [plain(sheet.caption), ""] if sheet.caption else []
        lines += [*_table(sheet), ""]
    for heading, text in (code or {}).items():
        # Indented, not fenced: no line of the text can end it.
        lines += [f"## {plain(heading)}", "", *(f"    {line}" for line in text.splitlines()), ""]
    lines += ["## Provenance", "", *_list(provenance)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no mark-up, on one line."""
    return re.sub(r"([\\`*_{}\[\]|~!#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def csv_text(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A CSV file that no spreadsheet takes for formulas."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(no_formula, header))
    writer.writerows(map(no_formula, line) for line in lines)
    return stream.getvalue()


def _table(sheet: Sheet) -> Iterator[str]:
    yield "| " + " | ".join(plain(name) for name in sheet.columns) + " |"
    places = range(len(sheet.columns))
    yield "|" + "|".join(" --- " if place in sheet.texts else " ---: " for place in places) + "|"
    for row in sheet.rows:
        cells = [plain(cell.text) + (f" ({plain(cell.remark)})" if cell.remark else "") for cell in row]
        yield "| " + " | ".join(cells) + " |"


def _list(mapping: Mapping[str, object], depth: int = 0) -> Iterator[str]:
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield f"{'  ' * depth}- {plain(str(name))}:"
            yield from _list(value, depth + 1)
        else:
            yield f"{'  ' * depth}- {plain(str(name))}: {plain(value_text(value))}"
