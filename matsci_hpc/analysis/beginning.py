"""What a run took over from another one, for its report."""

from collections.abc import Iterator

from matsci_hpc.analysis.records import Record, Run, as_mapping

Row = tuple[str, str, str]


def beginning_rows(run: Run) -> list[Row]:
    """What the provenance says of it: what was done, with what, and why; no row for a run without any of it."""
    noted = as_mapping(run.provenance.get("fine_tune"))
    return [*_rows(as_mapping(run.provenance.get("init_from")), noted)]


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
