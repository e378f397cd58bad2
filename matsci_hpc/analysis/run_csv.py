"""The numbers of a run as CSV, in full precision and of its valid course alone, for a spreadsheet or a script."""

import json
from collections.abc import Iterator
from typing import Any

from matsci_hpc.analysis.confusion import families
from matsci_hpc.analysis.figures import held_out_splits
from matsci_hpc.analysis.plain_text import csv_text
from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number
from matsci_hpc.analysis.run_tables import metric_tables, step_times
from matsci_hpc.analysis.stragglers import straggler_rows

OF_GROUPS = ("parameters", "grad_norm", "weight_norm", "update_norm", "effective_lr", "clipped_units")
"""Numbers of a layer group in a line of dynamics.jsonl."""
OF_RATIO = ("share_beyond", "mean", "std", "bimodality")
"""Of Adam's ratio, in it."""


def run_tables_csv(run: Run) -> str:
    """What the tables of the report show: table, name, quantity, value, unit."""
    return csv_text(("table", "name", "quantity", "value", "unit"), _table_lines(run))


def _table_lines(run: Run) -> Iterator[tuple[object, ...]]:
    for table in metric_tables(run):
        for row in table["rows"]:
            measure, _, unit = row["measure"].partition(" / ")
            title = f"metrics on {table['split']}"
            for key, quantity in (("last", ""), ("best", "best "), ("baseline", "without learning: ")):
                if row[key] is not None:
                    yield title, row["target"], quantity + measure, row[key], unit
            yield title, row["target"], f"step of the best {measure}", row["best_step"], ""
    for target, rows in families(run).items():
        for family in rows:
            title = f"point groups of {target} by family"
            yield title, family.name, "samples", family.samples, ""
            for quantity, share in (("group right", family.group_right), ("family right", family.family_right)):
                if share is not None:
                    yield title, family.name, quantity, share, ""
    for part in step_times(run):
        yield "time of a step", part["name"], "time", part["time_s"], "s"
        yield "time of a step", part["name"], "share", part["share"], ""
    for row in straggler_rows(run):
        name = f"rank {row['rank']} on {row['host']}: {row['reason']}"
        yield "stragglers", name, "share of the logged steps", row["share"], ""
        yield "stragglers", name, "busy over the median rank", row["ratio"], ""


def steps_csv(run: Run) -> str:
    """A line for each line of metrics.jsonl; losses by target as `losses.NAME`."""
    lines = [dict(_flat(line)) for line in run.steps]
    names = list(dict.fromkeys(name for line in lines for name in line))
    return csv_text(names, ([line.get(name) for name in names] for line in lines))


def evaluations_csv(run: Run) -> str:
    """A line for each number of each evaluation."""
    header = ("step", "epoch", "samples_seen", "time_s", "split", "samples", "target", "measure", "value")
    return csv_text(header, _evaluation_lines(run))


def _evaluation_lines(run: Run) -> Iterator[list[object]]:
    for split in held_out_splits(run):
        for line in run.evaluations:
            if str(line.get("split", "")) != split:
                continue
            place = [_cell(line.get(key)) for key in ("step", "epoch", "samples_seen", "time_s", "split", "samples")]
            if (loss := as_number(line.get("loss"))) is not None:
                yield [*place, "", "loss", loss]
            for target, metrics in as_mapping(line.get("metrics")).items():
                for measure, value in as_mapping(metrics).items():
                    if (number := as_number(value)) is not None:
                        yield [*place, target, measure, number]


def dynamics_csv(run: Run) -> str:
    """A line for each layer group of each line of dynamics.jsonl."""
    header = ("step", "group", *OF_GROUPS, *(f"ratio_{name}" for name in OF_RATIO))
    return csv_text(header, _dynamics_lines(run))


def _dynamics_lines(run: Run) -> Iterator[list[object]]:
    for line in run.dynamics:
        for name, group in as_mapping(line.get("groups")).items():
            known = as_mapping(group)
            ratio = as_mapping(known.get("ratio"))
            numbers = [as_number(known.get(key)) for key in OF_GROUPS] + [as_number(ratio.get(key)) for key in OF_RATIO]
            yield [line["step"], name, *numbers]


def _flat(line: Record, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Numbers and words of a line, those of mappings in it by path; lists are left out."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield f"{prefix}{name}", _cell(value)


def _cell(value: Any) -> object:
    """A JSON value as it stands in a file of numbers: what is no finite number is empty."""
    if isinstance(value, float) and as_number(value) is None:
        return None
    return value if isinstance(value, int | float | str) or value is None else json.dumps(value)
