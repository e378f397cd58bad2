"""The report of a run: one HTML file that needs nothing else and can be kept beside a paper."""

from pathlib import Path
from statistics import fmean, median

from matsci_hpc import __version__
from matsci_hpc.analysis import words
from matsci_hpc.analysis.figures import charts, held_out_splits, metric
from matsci_hpc.analysis.page import asset, plotly_scripts, templates
from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number, read_run, same_course
from matsci_hpc.analysis.speed_figures import time_parts
from matsci_hpc.analysis.stragglers import straggler_rows
from matsci_hpc.whole_files import write_atomic


def write_report(run_dir: Path) -> Path:
    """Write RUN_DIR/report.html from the records of a run, finished or not.

    Args:
        run_dir: A directory that `matsci-hpc train` wrote.

    Returns:
        The path of the report.

    Raises:
        UserInputError: The directory is not a run, or may not be written.
        MachineError: The disk is full or failing.
    """
    path = run_dir / "report.html"
    # A lone surrogate, legal in JSON and in file names, has no UTF-8 form.
    write_atomic(path, render(read_run(run_dir)).encode(errors="replace"))
    return path


def render(run: Run) -> str:
    """Make the whole page."""
    scripts = plotly_scripts()
    drawn = {f"chart-{index}": chart for index, chart in enumerate(charts(run))}
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            run=run,
            state=state(run),
            tiles=tiles(run),
            notes=notes(run),
            latest=_latest(run),
            verdicts=verdicts(run),
            metric_tables=metric_tables(run),
            times=step_times(run),
            waiting=waiting_for_slowest(run),
            stragglers=straggler_rows(run),
            sections=[
                (section, [(name, chart) for name, chart in drawn.items() if chart.section == section])
                for section in dict.fromkeys(chart.section for chart in drawn.values())
            ],
            figures={name: chart.figure for name, chart in drawn.items()},
            version=__version__,
            style=asset("report.css"),
            scripts=scripts.texts,
            script_hashes=scripts.hashes,
        )
    )


def state(run: Run) -> str:
    """Say how far the run came."""
    planned = f" of {words.number(run.planned_steps)}" if run.planned_steps else ""
    if run.complete:
        return "complete"
    if not run.steps:
        return "no step on record yet"
    return f"stopped at step {words.number(run.last_step)}{planned}"


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The key numbers: label, value, remark."""
    last: Record = run.steps[-1] if run.steps else {}
    rank_counts = [int(count) for line in run.steps if (count := as_number(line.get("ranks")))]
    in_turn = [count for before, count in zip([0, *rank_counts], rank_counts, strict=False) if count != before]
    lives = len(run.new_lives) + 1
    planned = f"of {words.number(run.planned_steps)}" if run.planned_steps else ""
    tail = [value for value in run.series("loss")[-5:] if value is not None]
    memory = [value for value in run.series("memory_bytes") if value is not None]
    found = [
        ("steps", words.number(run.last_step), planned),
        ("samples seen", words.number(as_number(last.get("samples_seen"))), "over all epochs"),
        ("ranks", " → ".join(words.number(count) for count in in_turn) or words.MISSING, ""),
        (
            "training time",
            words.duration(as_number(last.get("time_s"))),
            f"in {lives} lives" if lives > 1 else "",
        ),
        ("graphs per second", words.number(_median(run, "graphs_per_s")), "median, all ranks"),
        ("edges per second", words.number(_median(run, "edges_per_s")), "median, all ranks"),
        (
            "final training loss",
            words.number(fmean(tail) if tail else None),
            f"mean of {len(tail)} lines" if len(tail) > 1 else "",
        ),
        ("peak memory", words.size(max(memory, default=None)), "largest rank"),
        *_energy(run),
    ]
    return [(name, value, remark if value != words.MISSING else "") for name, value, remark in found]


def _energy(run: Run) -> list[tuple[str, str, str]]:
    """Energy of all steps on record, where a counter was read: those of lives that were taken back are not in it."""
    found = []
    for key, name in (("cpu_energy_j", "processors"), ("gpu_energy_j", "GPUs")):
        known = [joules for joules in run.series(key) if joules is not None]
        if known:
            per_graph = _energy_per_graph(run, key)
            each = f"{words.number(per_graph, 3)} J per graph" if per_graph is not None else ""
            found.append((f"energy of {name}", words.energy(sum(known)), each))
    return found


def _energy_per_graph(run: Run, key: str) -> float | None:
    """From the lines that say both their energy and, against the line before, how many samples they are about.

    The first line after a restart or a rollback does not: it begins at a checkpoint.
    """
    start: Record = {"samples_seen": 0}
    total_j = samples = 0.0
    for before, line in zip([start, *run.steps], run.steps, strict=False):
        joules, seen, earlier = (
            as_number(each) for each in (line.get(key), line.get("samples_seen"), before.get("samples_seen"))
        )
        if same_course(before, line) and joules is not None and seen is not None and earlier is not None:
            total_j += joules
            samples += seen - earlier
    return total_j / samples if samples > 0 else None


def notes(run: Run) -> list[str]:
    """What a reader should know before trusting the numbers."""
    found = []
    if not run.steps:
        found.append("metrics.jsonl holds no line yet, so there is nothing to plot.")
    bad = [line["step"] for line in run.steps if "loss" in line and as_number(line["loss"]) is None]
    if bad:
        found.append(
            f"The loss was not a finite number at {len(bad)} logged steps, "
            f"first at step {words.number(bad[0])}. A lower learning rate or optimizer.clip_norm often helps."
        )
    if not run.evaluations:
        found.append("Nothing was evaluated on held-out data yet, so the numbers below show training only.")
    if run.unreadable:
        found.append(f"{run.unreadable} damaged lines of the records were skipped.")
    return found


def verdicts(run: Run) -> list[tuple[str, words.Verdict]]:
    """What the last evaluation of the held-out split means, target by target."""
    latest = _latest(run)
    metrics = {name: as_mapping(known) for name, known in as_mapping(latest.get("metrics")).items()}
    every = latest.get("samples")  # in a mixture, some of them carry a target and some do not
    return [(name, words.verdict(known, known.get("samples", every))) for name, known in metrics.items()]


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
    return {"auroc": 0.5, "r2": 0.0}.get(key)


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


def _latest(run: Run) -> Record:
    """The last evaluation of the held-out split."""
    split = next(iter(held_out_splits(run)), "")
    return next((line for line in reversed(run.evaluations) if str(line.get("split", "")) == split), {})


def _median(run: Run, key: str) -> float | None:
    values = [value for value in run.series(key) if value is not None]
    return float(f"{median(values):.3g}") if values else None
