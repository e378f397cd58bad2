"""What a run took over from another one, for its report."""

from collections.abc import Iterator

from matsci_hpc.analysis.records import Record, Run, as_mapping
from matsci_hpc.analysis.sheet import Cell, Sheet

Row = tuple[str, str, str]


def beginning_sheet(run: Run) -> Sheet | None:
    """What the provenance says of it, as a table: what was done, with what, and why; None if there was none of it."""
    noted = as_mapping(run.provenance.get("fine_tune"))
    rows = tuple(tuple(map(Cell, row)) for row in _rows(as_mapping(run.provenance.get("init_from")), noted))
    return Sheet("What it began with", "", ("", "what", "remark"), rows, frozenset({0, 1, 2})) if rows else None


def _rows(origin: Record, noted: Record) -> Iterator[Row]:
    if origin:
        weights = "averaged parameters" if origin.get("weights") == "average" else "parameters"
        yield "begins with", str(origin.get("path")), f"{weights} of step {origin.get('step')}"
    for text in _list(noted.get("loaded")):
        yield "loaded", str(text), ""
    for each in _list(noted.get("not_loaded")):
        yield "not loaded", str(as_mapping(each).get("what")), str(as_mapping(each).get("why"))
    for key, word in (("differences", "differs"), ("warnings", "warning"), ("training", "encoder")):
        for text in _list(noted.get(key)):
            yield word, str(text), ""


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
