"""The report of a run: one HTML file that needs nothing else, and the same as Markdown, CSV and PNG."""

from pathlib import Path
from statistics import fmean, median

from matsci_hpc import __version__
from matsci_hpc.analysis import plain_text, words
from matsci_hpc.analysis.beginning import beginning_sheet
from matsci_hpc.analysis.chart import Chart
from matsci_hpc.analysis.chart_picture import picture
from matsci_hpc.analysis.confusion import family_sheets
from matsci_hpc.analysis.figures import charts
from matsci_hpc.analysis.page import asset, plotly_scripts, templates
from matsci_hpc.analysis.records import Record, Run, as_number, read_run, same_course
from matsci_hpc.analysis.run_csv import dynamics_csv, evaluations_csv, run_tables_csv, steps_csv
from matsci_hpc.analysis.run_tables import (
    data_sheet,
    latest_evaluation,
    learned_sheet,
    metric_sheets,
    step_times,
    straggler_sheet,
    times_caption,
    times_sheet,
    verdicts,
)
from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.whole_files import write_atomic

PAGE = "report.html"
PICTURE = "report.png"


def write_report(run_dir: Path) -> Path:
    """Write RUN_DIR/report.html and the files beside it from the records of a run, finished or not.

    report.md has the tables as Markdown, report_tables.csv their numbers, report_steps.csv, report_evaluations.csv and
    report_dynamics.csv those of the plots, report.png the plots.

    Args:
        run_dir: A directory that `matsci-hpc train` wrote.

    Returns:
        The path of the page.

    Raises:
        UserInputError: The directory is not a run, or may not be written.
        MachineError: The disk is full or failing.
    """
    run = read_run(run_dir)
    drawn = charts(run)
    texts = {
        "report.md": markdown(run),
        "report_tables.csv": run_tables_csv(run),
        "report_steps.csv": steps_csv(run),
        "report_evaluations.csv": evaluations_csv(run),
        "report_dynamics.csv": dynamics_csv(run),
        PAGE: render(run, drawn),  # last: a chain of jobs goes on once it is there
    }
    if drawn:
        write_atomic(run_dir / PICTURE, picture(drawn))
    for name, text in texts.items():
        # A lone surrogate, legal in JSON and in file names, has no UTF-8 form.
        write_atomic(run_dir / name, text.encode(errors="replace"))
    return run_dir / PAGE


def render(run: Run, drawn: list[Chart]) -> str:
    """Make the whole page."""
    scripts = plotly_scripts()
    named = {f"chart-{index}": chart for index, chart in enumerate(drawn)}
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            run=run,
            state=state(run),
            tiles=tiles(run),
            notes=notes(run),
            why_rolled_back=why_rolled_back(run),
            latest=latest_evaluation(run),
            verdicts=verdicts(run),
            metrics=[*metric_sheets(run), *family_sheets(run)],
            times=step_times(run),
            times_caption=times_caption(run),
            sheets=[each for each in _last_sheets(run) if each is not None],
            sections=[
                (section, [(name, chart) for name, chart in named.items() if chart.section == section])
                for section in dict.fromkeys(chart.section for chart in drawn)
            ],
            figures={name: chart.figure for name, chart in named.items()},
            version=__version__,
            style=asset("report.css"),
            scripts=scripts.texts,
            script_hashes=scripts.hashes,
        )
    )


def markdown(run: Run) -> str:
    """The tables of the page as Markdown."""
    results = [learned_sheet(run), *metric_sheets(run), *family_sheets(run)]
    tables = [*results, times_sheet(run), *_last_sheets(run)]
    sheets = [_tiles_sheet(run), *(each for each in tables if each is not None)]
    provenance = {**run.provenance, "report": f"matsci-hpc {__version__}"}
    return plain_text.markdown(
        f"{run.name}: {state(run)}", notes(run), sheets, provenance, code={"Config": run.config_text}
    )


def _last_sheets(run: Run) -> list[Sheet | None]:
    """The tables below those of the results."""
    return [straggler_sheet(run), data_sheet(run), beginning_sheet(run)]


def _tiles_sheet(run: Run) -> Sheet:
    rows = tuple((Cell(name), Cell(value, remark)) for name, value, remark in tiles(run))
    return Sheet("Key numbers", "", ("quantity", "value"), rows)


def state(run: Run) -> str:
    """Say how far the run came."""
    planned = f" of {words.number(run.planned_steps)}" if run.planned_steps else ""
    if run.complete:
        return "complete"
    if not run.steps:
        return "no step on record yet"
    return f"stopped at step {words.number(run.last_step)}{planned}"


def why_rolled_back(run: Run) -> str:
    """What the run went back from; records of earlier versions do not say, for it was spikes alone."""
    reasons = {each.get("reason") for each in run.rollbacks}
    names = ["spikes"] if reasons != {"nonfinite"} else []
    return " and ".join([*names, *(["steps that were not finite"] if "nonfinite" in reasons else [])])


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
    dumps = sorted(each.name for each in (run.folder / "nonfinite").glob("step-*")) if not run.complete else []
    if dumps:
        found.append(
            f"The run ended because a loss or gradient was not finite, at step {int(dumps[-1].removeprefix('step-'))}; "
            f"what led to it is in nonfinite/{dumps[-1]}. A lower learning rate or optimizer.clip_norm often helps."
        )
    if not run.evaluations:
        found.append("Nothing was evaluated on held-out data yet, so the numbers below show training only.")
    if run.unreadable:
        found.append(f"{run.unreadable} damaged lines of the records were skipped.")
    return found


def _median(run: Run, key: str) -> float | None:
    values = [value for value in run.series(key) if value is not None]
    return float(f"{median(values):.3g}") if values else None
