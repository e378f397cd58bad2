"""Reading and writing tables of measurements, as CSV with a header or as JSON lines, made by anyone."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.column_names import MEASURED, meant
from matsci_hpc.scaling.spreadsheet import as_it_was, no_formula
from matsci_hpc.scaling.table import DETAILS, Row, Scaling, Table
from matsci_hpc.whole_files import write_atomic

CSV_SUFFIXES, JSONL_SUFFIXES = (".csv",), (".jsonl", ".ndjson")
LEAST, MOST = 1e-30, 1e30
"""Nothing that is measured lies beyond, and squares and products of numbers between have no overflow."""

Cells = Mapping[str, str | None]
"""Of one row, by column; None: the value is missing."""


def read_table(path: Path, labels: Collection[str] | None = None, columns: Mapping[str, str] | None = None) -> Table:
    """Read a table and check every cell.

    Args:
        path: a `.csv` or `.jsonl` file; another name is judged by its first character.
        labels: columns that are labels; None: every column that has no other meaning.
        columns: the file's own names of some columns, by ours.

    Raises:
        UserInputError: the file cannot be read or is no such table, with its line and column.
    """
    text = read_text(path)
    in_json = is_json_lines(path, text)
    numbered = list(_json_lines(path, text) if in_json else _csv_lines(path, text))
    if not numbered:
        raise UserInputError(f"{path}: line 1: holds no measurement")
    header_line = numbered[0][0] if in_json else 1
    renamed = [(line, _renamed(cells, columns or {}, f"{path}: line {header_line}")) for line, cells in numbered]
    return table_of(renamed, str(path), labels, header_line=header_line)


def table_of(
    numbered: list[tuple[int, Cells]], origin: str, labels: Collection[str] | None = None, *, header_line: int = 1
) -> Table:
    """A table from the cells of each row and its line.

    Args:
        numbered: line and cells of each row, at least one.
        origin: named in errors.
        labels: columns that are labels; None: every column that has no other meaning.
        header_line: the one that names the columns.

    Raises:
        UserInputError: a column is missing or a cell is wrong, with its line.
    """
    first = numbered[0][1]
    _check_columns(first, f"{origin}: line {header_line}")
    measured = "throughput" if "throughput" in first else "time_s"
    for name in labels or ():
        if name not in first or name in MEASURED:
            others = ", ".join(each for each in first if each not in MEASURED) or "none"
            raise UserInputError(f"{origin}: line {header_line}: no column {name!r} for a label; there are: {others}")
    return Table(
        tuple(_row(cells, line, f"{origin}: line {line}", labels, measured) for line, cells in numbered), origin
    )


def _renamed(cells: Cells, columns: Mapping[str, str], where: str) -> Cells:
    for theirs in columns.values():
        if theirs not in cells:
            raise UserInputError(f"{where}: no column {theirs!r}; its columns are {', '.join(cells)}")
    ours = {theirs: name for name, theirs in columns.items()}
    return {ours.get(name, name): cell for name, cell in cells.items() if name in ours or name not in columns}


def write_table(path: Path, table: Table) -> None:
    """Write a table, as JSON lines if the name ends in .jsonl, else as CSV; reading it gives the same rows.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    lines = [_cells(row) for row in table.rows]
    columns = list(dict.fromkeys(name for cells in lines for name in cells))
    if path.suffix.lower() in JSONL_SUFFIXES:
        text = "".join(json.dumps(cells, ensure_ascii=False) + "\n" for cells in lines)
    else:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(map(no_formula, columns))
        writer.writerows([no_formula(cells.get(name, "")) for name in columns] for cells in lines)
        text = stream.getvalue()
    write_atomic(path, text.encode(errors="replace"))  # a lone surrogate, legal in JSON, has no UTF-8 form


def read_text(path: Path) -> str:
    """The text of a file that a user named.

    Raises:
        UserInputError: it cannot be read, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path}: is no text in UTF-8: {error.reason} at byte {error.start}") from None


def is_json_lines(path: Path, text: str) -> bool:
    """By the suffix, else by the first character."""
    suffix = path.suffix.lower()
    return suffix in JSONL_SUFFIXES or (suffix not in CSV_SUFFIXES and text.lstrip()[:1] == "{")


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, Cells]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [as_it_was(name.strip()) for name in next(reader, [])]
        _check_header(header, f"{path}: line 1", text)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{path}: line {reader.line_num}"
            if len(row) > len(header):
                comma = "; a number has a decimal point, no comma" if len(row) == len(header) + 1 else ""
                raise UserInputError(f"{where}: {len(row)} fields, and the header names {len(header)} columns{comma}")
            if len(row) < len(header):
                raise UserInputError(f"{where}: column {header[len(row)]}: the line ends before it")
            cells = [as_it_was(cell.strip()) or None for cell in row]
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserInputError(f"{path}: line {reader.line_num}: is no CSV: {error}") from None


def _check_header(header: list[str], where: str, text: str) -> None:
    if not any(header):
        raise UserInputError(f"{where}: holds no header; the first line names the columns, such as ranks,throughput")
    first = text.splitlines()[0]
    for name, mark in (("semicolons", ";"), ("tabulators", "\t")):
        if len(header) == 1 and mark in first:
            raise UserInputError(f"{where}: the columns are separated by {name}: write commas")
    for place, name in enumerate(header):
        if not name:
            raise UserInputError(f"{where}: column {place + 1} has no name")
        if header.count(name) > 1:
            raise UserInputError(f"{where}: {header.count(name)} columns are called {name!r}")
    if _is_number(header[0]):
        raise UserInputError(f"{where}: holds numbers where the names of the columns are expected: add a header")


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Cells]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}: line {line}"
        try:
            found = json.loads(content, object_pairs_hook=partial(_once, where=where))
        except json.JSONDecodeError as error:
            raise UserInputError(f"{where}: column {error.colno}: is no JSON: {error.msg}") from None
        except (ValueError, RecursionError):  # a number of thousands of digits, brackets within brackets
            raise UserInputError(f"{where}: is no JSON that can be read") from None
        if not isinstance(found, dict):
            raise UserInputError(f'{where}: is no JSON object; each line is one, such as {{"ranks": 2, ...}}')
        yield line, {name: _text(value, name, where) for name, value in _flat(found)}


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UserInputError(f"{where}: a name stands twice: {', '.join(name for name, _ in pairs)}")
    return found


def _flat(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """An object `details` is as many columns."""
    for name, value in found.items():
        if name == DETAILS.rstrip(".") and isinstance(value, dict):
            yield from ((f"{DETAILS}{key}", inner) for key, inner in value.items())
        else:
            yield name.strip(), value


def _text(value: object, name: str, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, dict | list):
        if name.startswith(DETAILS):
            return json.dumps(value)
        raise UserInputError(f"{where}: column {name}: holds {json.dumps(value)[:60]}; a number or a text is needed")
    return json.dumps(value)


def _check_columns(cells: Cells, where: str) -> None:
    if "ranks" not in cells:
        raise UserInputError(f"{where}: no column 'ranks'; {meant(('ranks',), cells)}")
    if "throughput" not in cells and "time_s" not in cells:
        advice = meant(("throughput", "time_s"), cells)
        raise UserInputError(f"{where}: no column 'throughput' (samples/s) and none 'time_s' (seconds); {advice}")


def _row(cells: Cells, line: int, where: str, labels: Collection[str] | None, measured: str) -> Row:
    for name in ("ranks", measured):
        if cells.get(name) is None:
            raise UserInputError(f"{where}: column {name}: is empty")
    numbers = {name: _number(cells, name, where) for name in ("throughput", "time_s", "samples")}
    ranks = _count(cells, "ranks", where)
    assert ranks is not None  # noqa: S101 - seen above
    scaling = cells.get("scaling")
    if scaling not in {None, "strong", "weak"}:
        raise UserInputError(f"{where}: column scaling: {scaling!r} is neither strong nor weak")
    others = {name: cell or "" for name, cell in cells.items() if name not in MEASURED}
    chosen = {name for name in others if (name in labels if labels is not None else not name.startswith(DETAILS))}
    return Row(
        ranks=ranks,
        nodes=_count(cells, "nodes", where),
        scaling=cast("Scaling | None", scaling),
        throughput_unit=cells.get("throughput_unit"),
        repeat=cells.get("repeat"),
        labels={name: cell for name, cell in others.items() if name in chosen},
        details={name.removeprefix(DETAILS): cell for name, cell in others.items() if name not in chosen},
        line=line,
        **numbers,
    )


def _number(cells: Cells, name: str, where: str) -> float | None:
    """A positive number, None where there is none."""
    cell = cells.get(name)
    if cell is None:
        return None
    where = f"{where}: column {name}"
    if not _is_number(cell):
        comma = " with a decimal point" if _is_number(cell.replace(",", ".", 1)) else ""
        unit = "samples" if name == "samples" else "samples/s" if name == "throughput" else "seconds"
        raise UserInputError(f"{where}: {cell!r} is not a number; write it in {unit}{comma} and without the unit")
    value = float(cell)
    if not math.isfinite(value) or value <= 0:
        raise UserInputError(f"{where}: {cell} cannot be measured; a positive number is needed, or remove the line")
    if not LEAST <= value <= MOST:
        raise UserInputError(f"{where}: {cell} cannot be measured; a number from {LEAST} to {MOST} is needed")
    return value


def _count(cells: Cells, name: str, where: str) -> int | None:
    """A positive whole number, None where there is none; `4.0` is one, too."""
    cell = cells.get(name)
    if cell is None:
        return None
    value = float(cell) if _is_number(cell) else math.nan
    if not math.isfinite(value) or value < 1 or value != int(value) or value >= 1 << 53:
        raise UserInputError(f"{where}: column {name}: {cell!r} is no count; it is 1, 2, 3 ...")
    return int(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python's own way to write numbers


def _cells(row: Row) -> dict[str, Any]:
    measured = {name: getattr(row, name) for name in MEASURED}
    return {
        **{name: value for name, value in measured.items() if value is not None},
        **row.labels,
        **{f"{DETAILS}{name}": value for name, value in row.details.items()},
    }
