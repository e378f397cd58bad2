"""The tables of the report of a run, as people read them."""

from collections.abc import Callable
from statistics import fmean

from matsci_hpc.analysis import words
from matsci_hpc.analysis.figures import held_out_splits, metric
from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number
from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.analysis.speed_figures import time_parts
from matsci_hpc.analysis.stragglers import straggler_rows


def latest_evaluation(run: Run) -> Record:
    """The last evaluation of the held-out split."""
    split = next(iter(held_out_splits(run)), "")
    return next((line for line in reversed(run.evaluations) if str(line.get("split", "")) == split), {})


def verdicts(run: Run) -> list[tuple[str, words.Verdict]]:
    """What the last evaluation of the held-out split means, target by target."""
    latest = latest_evaluation(run)
    metrics = {name: as_mapping(known) for name, known in as_mapping(latest.get("metrics")).items()}
    every = latest.get("samples")  # in a mixture, some of them carry a target and some do not
    return [(name, words.verdict(known, known.get("samples", every))) for name, known in metrics.items()]


def learned_sheet(run: Run) -> Sheet | None:
    """The verdicts as a table."""
    latest, found = latest_evaluation(run), verdicts(run)
    if not found:
        return None
    where = f"After {words.number(latest['step'])} steps, on the split {words.value_text(latest.get('split'))}"
    rows = tuple((Cell(target), Cell(verdict.headline), Cell(verdict.sentence)) for target, verdict in found)
    columns = ("target", "result", "what it means")
    return Sheet("What it has learned", where, columns, rows, frozenset({0, 1, 2}))


def metric_tables(run: Run) -> list[Record]:
    """For each evaluated split: every metric of every target at the last step, and the best it has been."""
    tables = []
    for split in held_out_splits(run):
        lines = [line for line in run.evaluations if str(line.get("split", "")) == split]
        latest = lines[-1]
        rows = []
        for target, metrics in as_mapping(latest.get("metrics")).items():
            for key, value in as_mapping(metrics).items():
                if key in words.MEASURES and (last := as_number(value)) is not None:
                    rows.append(_metric_row(lines, target, key, last))
        tables.append({"split": split, "latest": latest, "rows": rows})
    return tables


def _metric_row(lines: list[Record], target: str, key: str, last: float) -> Record:
    reached = [(value, line["step"]) for line in lines if (value := as_number(metric(line, target, key))) is not None]
    best, step = (min if key in words.LOWER_IS_BETTER else max)(reached, key=lambda pair: pair[0])
    unit = words.unit_of(key, metric(lines[-1], target, "unit"))
    baseline = as_number(metric(lines[-1], target, words.BASELINE_OF.get(key, "")))
    return {
        "target": target,
        "measure": words.MEASURES[key] + (f" / {unit}" if unit else ""),
        "last": last,
        "best": best,
        "best_step": step,
        "baseline": _without_learning(lines[-1], target, key) if baseline is None else baseline,
        "as_percent": key in {"accuracy", "balanced_accuracy", "exact"},
    }


def _without_learning(line: Record, target: str, key: str) -> float | None:
    """What a metric is by its definition where nothing was learned."""
    classes = as_number(metric(line, target, "classes"))
    if key == "balanced_accuracy":
        return 1 / classes if classes else None
    return {"auroc": 0.5, "r2": 0.0, "cosine": 0.0}.get(key)


def metric_sheets(run: Run) -> list[Sheet]:
    """The metrics of each split as a table."""
    return [_metric_sheet(table) for table in metric_tables(run) if table["rows"]]


def _metric_sheet(table: Record) -> Sheet:
    latest = table["latest"]
    caption = (
        f"{words.number(latest.get('samples'))} samples, at step {words.number(latest['step'])}. “Without learning” "
        "names the commonest class or predicts the training mean."
    )
    rows = []
    for row in table["rows"]:
        form: Callable[[float], str] = words.percent if row["as_percent"] else words.number
        baseline = "" if row["baseline"] is None else form(row["baseline"])
        cells = (row["target"], row["measure"], form(row["last"]), form(row["best"]), words.number(row["best_step"]))
        rows.append(tuple(map(Cell, (*cells, baseline))))
    columns = ("target", "measure", "last", "best", "at step", "without learning")
    return Sheet(f"Metrics on {table['split'] or 'held-out data'}", caption, columns, tuple(rows), frozenset({0, 1}))


def step_times(run: Run) -> list[Record]:
    """Mean time of each part of a step and its share, the largest parts being what to work on."""
    means: list[Record] = []
    for key, (name, color) in time_parts(run).items():
        values = [value for value in run.series(key) if value is not None]
        if values:
            means.append({"name": name, "color": color, "time_s": fmean(values)})
    total = sum(part["time_s"] for part in means)
    return [{**part, "share": part["time_s"] / total if total else 0.0} for part in means]


def waiting_for_slowest(run: Run) -> float | None:
    """Part of the step that the average rank waits for the slowest one."""
    pairs = zip(run.series("step_time_s"), run.series("step_time_mean_s"), strict=True)
    waits = [1 - average / slowest for slowest, average in pairs if slowest and average is not None]
    return fmean(waits) if waits else None


def times_caption(run: Run) -> str:
    """What the table of times is of."""
    waiting = waiting_for_slowest(run)
    slowest = f" The average rank finishes {words.percent(waiting)} of a step before the slowest one."
    return "Mean over ranks and logged steps." + (slowest if waiting is not None else "")


def times_sheet(run: Run) -> Sheet | None:
    """Where the time goes, as a table."""
    parts = step_times(run)
    if not parts:
        return None
    rows = [(part["name"], words.duration(part["time_s"]), words.percent(part["share"])) for part in parts]
    rows.append(("whole step", words.duration(sum(part["time_s"] for part in parts)), ""))
    cells = tuple(tuple(map(Cell, row)) for row in rows)
    return Sheet("Where the time goes", times_caption(run), ("part of a step", "time", "share"), cells)


def straggler_sheet(run: Run) -> Sheet | None:
    """Ranks that kept the others waiting, as a table."""
    found = straggler_rows(run)
    if not found:
        return None
    caption = (
        "Busy means waiting for data, computing and moving the parameters. “More work” is by predicted cost; on a "
        "slower node the same work takes longer."
    )
    rows = tuple(
        (
            Cell(words.number(row["rank"])),
            Cell(row["host"]),
            Cell(row["reason"]),
            Cell(words.percent(row["share"])),
            Cell(f"{row['ratio']:.2f}"),
            Cell(words.number(row["in_row"])),
            Cell(f"{words.number(row['first'])} to {words.number(row['last'])}"),
        )
        for row in found
    )
    columns = (
        "rank", "host", "reason", "of the logged steps", "busy, over the median rank", "lines in a row", "steps",
    )  # fmt: skip
    return Sheet("Ranks that kept the others waiting", caption, columns, rows, frozenset({1, 2}))


def data_sheet(run: Run) -> Sheet | None:
    """The data sets, as a table."""
    if not run.data:
        return None
    rows = tuple(
        (
            Cell(words.value_text(entry.get("path"))),
            Cell(words.number(entry.get("samples"))),
            Cell(words.value_text(entry.get("splits"))),
            Cell(words.number(entry.get("cutoff_angstrom"))),
        )
        for entry in run.data
    )
    return Sheet("Data", "", ("data set", "samples", "splits", "cutoff / Å"), rows, frozenset({0, 2}))
