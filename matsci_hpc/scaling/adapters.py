"""Results of other benchmark programs as tables of measurements.

| program | file | known by |
|---|---|---|
| ReFrame 4 | performance log, `perflogs/SYSTEM/PARTITION/TEST.log` | fields between bars, a header |
| ReFrame 4 | report, `--report-file` | JSON with `session_info` and `runs` |
| JUBE 2 | `result/TABLE.dat`, style pretty or csv | a frame of bars, or units in brackets behind the names |

What a test of ReFrame is called with (`%name=value`), its system, partition and environment are labels; so are the
columns of JUBE. A label that has one value only, or follows the number of ranks, tells no series apart and becomes a
detail.

Sources: config reference of ReFrame, `handlers_perflog`, and its schema `runreport.json`; JUBE's
`result_types/table.py`.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.column_names import MEASURED
from matsci_hpc.scaling.table import DETAILS, Table
from matsci_hpc.scaling.table_files import Cells, is_json_lines, read_table, read_text, table_of

SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
    "ps": 1e-12,
    "min": 60.0,
    "h": 3600.0,
}
_RATE = re.compile(r"(?P<what>.*\S)\s*/\s*s(ec|econds?)?|[kmgtpe]?i?(b|flo|o|io|f)ps")
"""Something per second. Of the units that end in ps only known ones: ps are times, and steps are no rate."""
_JUBE_RANKS = ("ranks", "tasks", "ntasks", "num_tasks", "mpi_tasks", "mpitasks", "procs", "processes")
_JUBE_REPEAT = re.compile(r"(jube_wp_)?iteration(_.*)?$")
_TITLE = re.compile(r"(?P<name>.*?)\s*\[(?P<unit>[^]]*)\]$")
_USUAL: tuple[str, ...] = ("throughput", "time_s", "time")
"""Of several things that were measured, the one to take."""

Rows = list[tuple[int, dict[str, str | None]]]


def read_results(path: Path, labels: Collection[str] | None = None, columns: Mapping[str, str] | None = None) -> Table:
    """Read a table of measurements, or results of ReFrame or JUBE.

    Args:
        path: the file.
        labels: columns that are labels; None: every one that tells series apart.
        columns: which column of the file is `ranks`, `throughput`, `time_s` and so on, where its name does not say it.

    Raises:
        UserInputError: the file cannot be read or understood, with its line and column.
    """
    columns = columns or {}
    for name in columns:
        if name not in MEASURED:
            raise UserInputError(f"--column {name}={columns[name]}: {name!r} is none of {', '.join(MEASURED)}")
    text = read_text(path)
    first = text.lstrip().partition("\n")[0]
    notes: list[str] = []
    if "session_info" in text[:2000] and (report := _report_of(text)) is not None:
        rows = list(_reframe_report(report, path, columns, notes))
    elif is_json_lines(path, text):
        return read_table(path, labels, columns)
    elif first.count("|") > first.count(",") and not first.startswith("|"):
        rows = list(_reframe_log(text, path, columns, notes))
    elif "|" in text.partition("\n")[2].partition("\n")[0] and (first.startswith("|") or first.endswith(":")):
        rows = _jube(_bars(text, path), path, columns)
    elif path.suffix.lower() == ".dat" or re.search(r"\w\s*\[[^],]*\](;|,|$)", first):
        rows = _jube(_separated(text, path), path, columns)
    else:
        return read_table(path, labels, columns)
    if not rows:
        raise UserInputError(f"{path}: line 1: holds no measurement{f' ({notes[0]})' if notes else ''}")
    table = table_of(list(_only_telling(rows, labels)), str(path), labels)
    return Table(table.rows, table.origin, tuple(notes))


def _only_telling(rows: Rows, labels: Collection[str] | None) -> Iterator[tuple[int, Cells]]:
    """Make details of the labels that tell no series apart."""
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    quiet = {name for name in names if name not in MEASURED and name not in (labels or ()) and not _tells(name, rows)}
    seen: Counter[tuple[tuple[str, str | None], ...]] = Counter()
    for line, cells in rows:
        kept = {(f"{DETAILS}{name}" if name in quiet else name): cells.get(name) for name in names}
        if "repeat" not in names:  # what ran again was appended
            key = tuple((k, v) for k, v in kept.items() if k == "ranks" or not (k in MEASURED or k.startswith(DETAILS)))
            seen[key] += 1
            kept["repeat"] = str(seen[key])
        yield line, kept


def _tells(name: str, rows: Rows) -> bool:
    pairs = {(cells.get(name), cells["ranks"]) for _, cells in rows}
    values, counts = {value for value, _ in pairs}, {ranks for _, ranks in pairs}
    return len(values) > 1 and not len(values) == len(counts) == len(pairs)


def _report_of(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("runs"), list) else None


def _reframe_report(
    report: dict[str, Any], path: Path, columns: Mapping[str, str], notes: list[str]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    cases = [
        case
        for run in report["runs"]
        if isinstance(run, dict) and isinstance(run.get("testcases"), list)
        for case in run["testcases"]
        if isinstance(case, dict)
    ]
    failed = 0
    for number, case in enumerate(cases, 1):
        where = f"{path}: case {number} ({str(case.get('name'))[:60]})"
        values = case.get("perfvalues")
        if case.get("result") != "pass" or not isinstance(values, dict) or not values:
            failed += 1
            continue
        measured: dict[str, tuple[str, str]] = {}
        for name, value in values.items():
            if not isinstance(value, list) or len(value) < 5:
                raise UserInputError(f"{where}: perfvalues {name}: is not as ReFrame 4 writes it")
            measured[name.rpartition(":")[2]] = (str(value[0]), str(value[4] or ""))
        attributes = {key: None if value is None else str(value) for key, value in case.items() if key != "perfvalues"}
        yield number, _reframe_cells(attributes, measured, columns, where)
    _count_failed(failed, notes)


def _reframe_log(
    text: str, path: Path, columns: Mapping[str, str], notes: list[str]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    lines = text.splitlines()
    header = lines[0].split("|")
    perf = [name.removesuffix("_value") for name in header if name.endswith("_value")]
    if "num_tasks" not in header or "name" not in header or not perf:
        raise UserInputError(
            f"{path}: line 1: as a performance log of ReFrame it must name the fields num_tasks, name and one that "
            "ends in _value; its format is set by handlers_perflog in the configuration of ReFrame"
        )
    failed = 0
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        fields = line.split("|")
        where = f"{path}: line {number}"
        if len(fields) != len(header):
            raise UserInputError(f"{where}: {len(fields)} fields, and the header names {len(header)}")
        cells = {
            name: field if field not in {"", "null", "None"} else None
            for name, field in zip(header, fields, strict=True)
        }
        if cells.get("result", "pass") != "pass":
            failed += 1
            continue
        measured = {name: (cells[f"{name}_value"] or "", cells.get(f"{name}_unit") or "") for name in perf}
        yield number, _reframe_cells(cells, measured, columns, where)
    _count_failed(failed, notes)


def _count_failed(failed: int, notes: list[str]) -> None:
    if failed:
        notes.append(f"{failed} cases of ReFrame that did not pass or measured nothing are left out.")


def _reframe_cells(
    attributes: Mapping[str, str | None],
    measured: Mapping[str, tuple[str, str]],
    columns: Mapping[str, str],
    where: str,
) -> dict[str, str | None]:
    name = attributes.get("name") or ""
    cells: dict[str, str | None] = {"ranks": attributes.get(columns.get("ranks", "num_tasks"))}
    per_node = attributes.get("num_tasks_per_node")
    if per_node and (cells["ranks"] or "").isdigit() and per_node.isdigit() and int(per_node):
        cells["nodes"] = str(-(-int(cells["ranks"] or 0) // int(per_node)))
    cells |= _measure(measured, columns, where)
    cells["test"] = name.partition(" %")[0]
    cells |= {key: value for key, value in re.findall(r"%([^\s=]+)=(\S+)", name) if key not in MEASURED}
    return cells | {key: attributes.get(key) for key in ("system", "partition", "environ")}


def _measure(measured: Mapping[str, tuple[str, str]], columns: Mapping[str, str], where: str) -> dict[str, str | None]:
    """The cells of what was measured, by its name and unit: value and unit of each are given."""
    wanted = next(((kind, columns[kind]) for kind in ("throughput", "time_s") if kind in columns), None)
    known = {name: kind for name, (_, unit) in measured.items() if (kind := _kind(unit))}
    if wanted is not None:
        kind, name = wanted
        if name not in measured:
            raise UserInputError(f"{where}: no {name!r} was measured; there are: {', '.join(measured)}")
    else:
        names = [name for name in _USUAL if name in known] or list(known)
        if not names or (len(names) > 1 and names[0] not in _USUAL):
            raise UserInputError(
                f"{where}: what was measured is not clear from the units of {', '.join(measured)}: name it by "
                "--column throughput=NAME or --column time_s=NAME"
            )
        name = names[0]
        kind = known[name]
    value, unit = measured[name]
    if kind == "throughput":
        rate = _RATE.fullmatch(unit.lower())
        in_samples = not unit or (rate is not None and rate["what"] in {"sample", "samples"})
        return {kind: value or None} | ({} if in_samples else {"throughput_unit": unit})
    size = SECONDS.get(unit.lower() or "s")
    if size is None:
        raise UserInputError(f"{where}: {name}: {unit!r} is no time; its unit is one of {', '.join(SECONDS)}")
    if size != 1.0:
        try:
            value = repr(float(value) * size)
        except ValueError:
            raise UserInputError(f"{where}: {name}: {value!r} is not a number") from None
    return {kind: value or None}


def _kind(unit: str) -> str | None:
    if unit.lower() in SECONDS:
        return "time_s"
    return "throughput" if _RATE.fullmatch(unit.lower()) else None


def _bars(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells of JUBE's pretty style, the header first."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            if line.strip() and not line.rstrip().endswith(":"):
                raise UserInputError(f"{path}: line {number}: is no row of a table of JUBE, which begins with a bar")
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not all(set(cell) <= {"-"} and cell for cell in cells):
            yield number, cells


def _separated(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    import csv
    import io

    mark = max(",;\t|", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise UserInputError(f"{path}: line {reader.line_num}: is no CSV: {error}") from None


def _jube(lines: Iterator[tuple[int, list[str]]], path: Path, columns: Mapping[str, str]) -> Rows:
    header_line, header = next(lines, (1, []))
    titles = [(match["name"], match["unit"]) if (match := _TITLE.match(title)) else (title, "") for title in header]
    names = [name for name, _ in titles]
    where = f"{path}: line {header_line}"
    if len(set(names)) < len(names):
        raise UserInputError(f"{where}: two columns have the same name: {', '.join(names)}")
    taken = dict(columns)
    if "ranks" not in taken and (usual := [name for name in names if name.lower() in _JUBE_RANKS]):
        taken["ranks"] = usual[0]
    if "repeat" not in taken and (usual := [name for name in names if _JUBE_REPEAT.match(name)]):
        taken["repeat"] = usual[0]
    if "nodes" not in taken and "nodes" in names:
        taken["nodes"] = "nodes"
    for ours, theirs in {"ranks": taken.get("ranks", ""), **taken}.items():
        if theirs not in names:
            missing = f"no column {theirs!r}" if theirs else "no column is known to count ranks"
            raise UserInputError(f"{where}: {missing}; name it by --column {ours}=NAME, one of {', '.join(names)}")
    rows: Rows = []
    for number, row in lines:
        if len(row) != len(names):
            raise UserInputError(f"{path}: line {number}: {len(row)} fields, and the header names {len(names)}")
        cells = {name: cell or None for name, cell in zip(names, row, strict=True)}
        measured = {
            name: (cells[name] or "", unit)
            for name, unit in titles
            if unit or name in (columns.get("throughput"), columns.get("time_s"))
        }
        found: dict[str, str | None] = {ours: cells[theirs] for ours, theirs in taken.items()}
        found |= _measure(measured, columns, f"{path}: line {number}")
        others = set(names) - set(taken.values()) - set(measured)
        rows.append((number, found | {name: cells[name] for name in names if name in others and name not in MEASURED}))
    return rows
