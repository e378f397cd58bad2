"""A prediction as a page that needs nothing else, and the same as Markdown, CSV and PNG."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from matsci_hpc import __version__
from matsci_hpc.analysis import plain_text
from matsci_hpc.analysis.chart_picture import picture
from matsci_hpc.analysis.page import Words, sheet_page
from matsci_hpc.analysis.prediction_figures import PARTS, plots
from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.analysis.words import MISSING, number, percent
from matsci_hpc.preflight.words import time_in_words
from matsci_hpc.scaling.efficiency import Estimate
from matsci_hpc.scaling.forecast_run import Forecast, Question
from matsci_hpc.scaling.prediction import Prediction
from matsci_hpc.scaling.prediction_table import basis_lines, step_time
from matsci_hpc.scaling.study_forecast import SeriesForecast, StudyForecast, remarks_of
from matsci_hpc.scaling.study_forecast_table import interval_in_words
from matsci_hpc.whole_files import output_error, write_atomic

PAGE = "prediction.html"
FILES = (PAGE, "prediction.md", "prediction.csv", "prediction.png")


def write_prediction(forecast: Forecast, question: Question, out: Path) -> Path:
    """Write prediction.html and the files beside it, of one training run.

    Args:
        forecast: the answer.
        question: that it answers.
        out: folder, made if it is not there; files of the same names are replaced.

    Returns:
        The page.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    return _write((SeriesForecast("", {}, forecast),), question, "weak" if question.weak else "strong", out)


def write_study_prediction(found: StudyForecast, question: Question, out: Path) -> Path:
    """The same of a study, with what it measured; arguments and errors as of `write_prediction`."""
    return _write(found.series, question, found.study.scaling, out)


def _write(series: Sequence[SeriesForecast], question: Question, scaling: str, out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from None
    ranks = [each.ranks for one in series for each in one.forecast.predictions]
    measured = sum(known.repeats for one in series for known in one.measured.values())
    said = Words(
        title=f"Prediction of {question.config.name}",
        state=f"{scaling} scaling, {number(min(ranks))} to {number(max(ranks))} ranks",
        subtitle=f"Beside {number(measured)} measured runs." if measured else "Nothing was measured on these sizes.",
        notes=[
            f"{text if _names_series(series, text) else text[0].upper() + text[1:]}." for text in remarks_of(series)
        ],
        beside="prediction.csv",
    )
    sheets = [_table(series), _parts(series), _basis(series)]
    drawn = plots(series)
    provenance = _provenance(question, scaling)
    texts = {
        PAGE: sheet_page(said, sheets, drawn, provenance),
        "prediction.md": plain_text.markdown(said.title, [said.state, *said.notes], sheets, provenance),
        "prediction.csv": plain_text.csv_text(_header(series), _csv_lines(series, scaling)),
    }
    for name, text in texts.items():
        # A lone surrogate, legal in file names, has no UTF-8 form.
        write_atomic(out / name, text.encode(errors="replace"))
    write_atomic(out / "prediction.png", picture(drawn))
    return out / PAGE


def _names_series(series: Sequence[SeriesForecast], text: str) -> bool:
    """Whether a remark begins with the name of a series, which is written as it is."""
    return any(one.name and text.startswith(one.name) for one in series)


def _table(series: Sequence[SeriesForecast]) -> Sheet:
    beside = any(one.measured for one in series)
    columns = ["series", "ranks", "nodes", "graphs", "step", "epoch", "node-hours", "efficiency", "limited by"]
    if beside:
        columns[5:5] = ["measured", "predicted over measured"]
        columns.insert(-1, "efficiency measured")
    rows = []
    for one in series:
        for each in one.forecast.predictions:
            cells = [
                Cell(one.name or "all"),
                Cell(number(each.ranks)),
                Cell(number(each.nodes)),
                Cell(f"{each.graphs:,.0f}"),
                Cell(step_time(each.step_s)),
                Cell(time_in_words(each.epoch_s)),
                Cell(f"{each.node_hours:,.3g}"),
                Cell(percent(each.efficiency)),
                Cell(each.limit, f"{percent(round(getattr(each.parts, each.limit) / each.step_s, 2))} of a step"),
            ]
            if beside:
                step, ratio, share = _measured_cells(one, each)
                cells[5:5] = [step, ratio]
                cells.insert(-1, share)
            rows.append(tuple(cells))
    caption = (
        "Mean time of a step, without evaluations and checkpoints; epoch and node-hours of all steps of an epoch; "
        "efficiency is time of an epoch times ranks, the smallest number of the series over these. Limited by: the "
        "largest part of a step besides computing, unless these are 10 % of it at most."
    )
    if beside:
        caption += " Measured is the mean of complete runs, with its interval of 95 %."
    texts = frozenset({0, len(columns) - 1})
    return Sheet("Predicted and measured" if beside else "Predicted", caption, tuple(columns), tuple(rows), texts)


def _measured_cells(series: SeriesForecast, each: Prediction) -> tuple[Cell, Cell, Cell]:
    found, ratio = series.measured.get(each.ranks), series.ratio(each)
    if found is None or ratio is None:
        return Cell(MISSING), Cell(MISSING), Cell(MISSING)
    share = found.efficiency
    shown = Cell(MISSING) if share is None else Cell(percent(share.value), _ends_in_words(share))
    return Cell(step_time(found.step_s.value), interval_in_words(found)), Cell(f"{ratio:.2f}"), shown


def _ends_in_words(share: Estimate) -> str:
    known = share.low is not None and share.high is not None
    return f"{percent(share.low)} to {percent(share.high)}" if known else ""


def _parts(series: Sequence[SeriesForecast]) -> Sheet:
    columns = ("series", "ranks", *(name for name, _ in PARTS.values()))
    rows = tuple(
        (
            Cell(one.name or "all"),
            Cell(number(each.ranks)),
            *(
                Cell(step_time(part), percent(round(part / each.step_s, 3))) if part else Cell(MISSING)
                for part in (getattr(each.parts, key) for key in PARTS)
            ),
        )
        for one in series
        for each in one.forecast.predictions
    )
    caption = (
        "Parts of a step: computing of the mean share; what it takes whatever the share, with the optimiser; waiting "
        "for the largest share, and for ranks that happen to be slow; exposed communication; input that is later than "
        "all of these."
    )
    return Sheet("Where a step's time goes", caption, columns, rows)


def _basis(series: Sequence[SeriesForecast]) -> Sheet:
    """What the prediction counts with, as the text on the screen says it."""
    rows = []
    for one in series:
        label = ""
        for line in basis_lines(one.forecast):
            label = line[2:11].strip() or label
            rows.append((Cell(one.name or "all"), Cell(label), Cell(line[11:].strip())))
    return Sheet("What it counts with", "", ("series", "of", "is"), tuple(rows), frozenset({0, 1, 2}))


def _provenance(question: Question, scaling: str) -> dict[str, object]:
    asked = {key: value for key, value in asdict(question).items() if value not in (None, (), [])}
    found: dict[str, object] = {"config": str(question.config), "scaling": scaling}
    found["asked"] = {
        key: [str(each) for each in value] if isinstance(value, list | tuple) else str(value)
        for key, value in asked.items()
        if key not in {"config", "weak"}
    }
    return found | {"matsci-hpc": __version__, "numpy": np.__version__}


def _header(series: Sequence[SeriesForecast]) -> list[str]:
    return [
        *_labels(series),
        *("scaling", "ranks", "nodes", "graphs", "steps", "step_s", "epoch_s", "node_hours", "graphs_per_s"),
        *("efficiency", "imbalance", "idle", "limit", "extrapolated"),
        *(f"{key}_s" for key in PARTS),
        *("repeats", "measured_step_s", "measured_step_low_s", "measured_step_high_s", "ratio"),
        *("measured_efficiency", "measured_efficiency_low", "measured_efficiency_high"),
    ]


def _labels(series: Sequence[SeriesForecast]) -> list[str]:
    return list(dict.fromkeys(name for one in series for name in one.labels))


def _csv_lines(series: Sequence[SeriesForecast], scaling: str) -> Iterator[list[object]]:
    for one in series:
        for each in one.forecast.predictions:
            line: list[object] = [one.labels.get(name) for name in _labels(series)]
            line += [scaling, each.ranks, each.nodes, each.graphs, each.steps, each.step_s, each.epoch_s]
            line += [each.node_hours, each.graphs_per_s, each.efficiency, each.imbalance, each.idle, each.limit]
            line += [str(each.extrapolated).lower(), *(getattr(each.parts, key) for key in PARTS)]
            found = one.measured.get(each.ranks)
            if found is None:
                yield [*line, *[None] * 8]
                continue
            share = found.efficiency
            line += [found.repeats, *_ends(found.step_s), one.ratio(each)]
            yield line + ([None] * 3 if share is None else _ends(share))


def _ends(estimate: Estimate) -> list[object]:
    return [estimate.value, estimate.low, estimate.high]
