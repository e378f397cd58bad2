"""Which figures a run report shows, and what they show."""

from collections.abc import Callable
from typing import Any

from matsci_hpc.analysis.chart import HELD_OUT, TRAINING, Chart
from matsci_hpc.analysis.confusion import confusion_charts
from matsci_hpc.analysis.dynamics_figures import dynamics_charts
from matsci_hpc.analysis.plotting import (
    AXIS,
    BLUE,
    GREEN,
    GREY,
    PALETTE,
    PURPLE,
    VERMILION,
    Line,
    any_value,
    empty_figure,
    label,
    line_figure,
    rounded,
    smoothed,
    smoothing_window,
    spans_decade,
    with_smooth,
)
from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number
from matsci_hpc.analysis.speed_figures import speed_charts
from matsci_hpc.analysis.words import BASELINE_OF, LOWER_IS_BETTER, MEASURES, number, percent


def charts(run: Run) -> list[Chart]:
    """Every chart that the records of a run can fill, in reading order."""
    steps = [int(line["step"]) for line in run.steps]
    made = [
        _loss(run, steps),
        _target_losses(run, steps),
        _target_weights(run, steps),
        _learning_rate(run, steps),
        _gradient_norm(run, steps),
        *dynamics_charts(run),
        *_held_out(run),
        *_per_class(run),
        *confusion_charts(run),
        *speed_charts(run, steps),
    ]
    return [chart for chart in made if chart is not None]


def held_out_splits(run: Run) -> list[str]:
    """Evaluated splits, the config's held-out split first."""
    found = list(dict.fromkeys(str(line.get("split", "")) for line in run.evaluations))
    first = as_mapping(run.config.get("data")).get("held_out", "val")
    return sorted(found, key=lambda split: split != first)


def metric(evaluation: Record, target: str, key: str) -> Any:
    """One entry of the metrics of one target, None where it is missing."""
    return as_mapping(as_mapping(evaluation.get("metrics")).get(target)).get(key)


def main_measures(run: Run) -> dict[str, str]:
    """The metric that stands for each target: an error in its unit, or how often it is right."""
    found: dict[str, str] = {}
    for line in run.evaluations:
        for target, metrics in as_mapping(line.get("metrics")).items():
            known = as_mapping(metrics)
            keys = ("mae", "accuracy", "f1", "loss")
            key = next((key for key in keys if as_number(known.get(key)) is not None), None)
            if key:
                found[target] = key
    return found


def _over_evaluations(run: Run, split: str, pick: Callable[[Record], Any]) -> tuple[list[int], list[float | None]]:
    lines = [line for line in run.evaluations if str(line.get("split", "")) == split]
    return [int(line["step"]) for line in lines], [as_number(pick(line)) for line in lines]


def _loss(run: Run, steps: list[int]) -> Chart | None:
    values = run.series("loss")
    lines = with_smooth("training", steps, values) if any_value(values) else []
    for color, split in zip((VERMILION, GREEN, PURPLE), held_out_splits(run), strict=False):
        x, y = _over_evaluations(run, split, lambda line: line.get("loss"))
        if any_value(y):
            lines.append(Line(f"held out ({split})", x, y, color, "points"))
    if not lines:
        return None
    log = spans_decade(value for line in lines for value in line.y)
    learned = as_mapping(run.config.get("weighting")).get("rule", "fixed") != "fixed"
    caption = "The sum over targets that training lowers" + (", held out with fixed weights" if learned else "")
    caption += "; log scale" if log else ""
    figure = line_figure(lines, restarts=run.restarts, log=log)
    return Chart(TRAINING, "Loss", caption, figure, wide=True, height=360)


def _target_losses(run: Run, steps: list[int]) -> Chart | None:
    names = list(dict.fromkeys(name for line in run.steps for name in as_mapping(line.get("losses"))))
    if len(names) < 2:
        return None
    window = smoothing_window(len(steps))
    lines = []
    for index, name in enumerate(names):
        values = [as_number(as_mapping(line.get("losses")).get(name)) for line in run.steps]
        lines.append(Line(name, steps, smoothed(values, window), PALETTE[index % len(PALETTE)]))
    log = spans_decade(value for line in lines for value in line.y)
    caption = f"Training loss, mean of {window} lines" + ("; log scale" if log else "")
    figure = line_figure(lines, restarts=run.restarts, log=log)
    return Chart(TRAINING, "Loss of each target", caption, figure, wide=True, height=300)


def _target_weights(run: Run, steps: list[int]) -> Chart | None:
    """Where weights are learned: those of the config are a row of straight lines."""
    names = list(dict.fromkeys(name for line in run.steps for name in as_mapping(line.get("weights"))))
    lines = []
    for index, name in enumerate(names):
        values = [as_number(as_mapping(line.get("weights")).get(name)) for line in run.steps]
        lines.append(Line(name, steps, values, PALETTE[index % len(PALETTE)]))
    if not any(len(set(line.y) - {None}) > 1 for line in lines):
        return None
    log = spans_decade(value for line in lines for value in line.y)
    caption = "What the loss of each target is multiplied by" + ("; log scale" if log else "")
    figure = line_figure(lines, restarts=run.restarts, log=log, from_zero=not log)
    return Chart(TRAINING, "Weight of each target", caption, figure, wide=True, height=300)


def _learning_rate(run: Run, steps: list[int]) -> Chart | None:
    values = run.series("lr")
    if not any_value(values):
        return None
    figure = line_figure([Line("learning rate", steps, values)], restarts=run.restarts, from_zero=True)
    figure["layout"]["yaxis"]["exponentformat"] = "power"
    return Chart(TRAINING, "Learning rate", "Warm-up, scaling and decay included", figure)


def _gradient_norm(run: Run, steps: list[int]) -> Chart | None:
    values = run.series("grad_norm")
    if not any_value(values):
        return None
    log = spans_decade(values)
    figure = line_figure(with_smooth("norm", steps, values), restarts=run.restarts, log=log, from_zero=True)
    return Chart(TRAINING, "Gradient norm", "Over all parameters" + ("; log scale" if log else ""), figure)


def _held_out(run: Run) -> list[Chart]:
    """One chart for each target: its main metric, and where no learning would stand."""
    found = []
    for target, key in main_measures(run).items():
        lines = []
        for color, split in zip((BLUE, GREEN, PURPLE), held_out_splits(run), strict=False):
            x, y = _over_evaluations(run, split, lambda line: metric(line, target, key))  # noqa: B023 - called at once
            lines.append(Line(split or "held out", x, y, color, "connected"))
            x, y = _over_evaluations(run, split, lambda line: metric(line, target, BASELINE_OF.get(key, "")))  # noqa: B023
            if any_value(y):
                lines.append(Line("without learning", x, y, GREY, "baseline"))
        unit = next((unit for line in run.evaluations if (unit := metric(line, target, "unit"))), "")
        measure = MEASURES[key].capitalize() if key != "f1" else MEASURES[key]
        better = "lower" if key in LOWER_IS_BETTER else "higher"
        figure = line_figure([line for line in lines if any_value(line.y)], restarts=run.restarts, from_zero=True)
        if key == "accuracy":
            figure["layout"]["yaxis"]["tickformat"] = ".0%"
        caption = f"{measure}{f' in {unit}' if unit else ''}; {better} is better"
        found.append(Chart(HELD_OUT, target, caption, figure))
    return found


def _per_class(run: Run) -> list[Chart]:
    latest = next((line for line in reversed(run.evaluations) if as_mapping(line.get("per_class"))), None)
    if latest is None:
        return []
    found = []
    for target, classes in latest["per_class"].items():
        rows = [
            (name, accuracy, as_number(as_mapping(result).get("count")))
            for name, result in as_mapping(classes).items()
            if (accuracy := as_number(as_mapping(result).get("accuracy"))) is not None
        ]
        rows.sort(key=lambda row: row[1])
        if rows:
            caption = f"{target}: how much of each class is named right, at step {number(latest['step'])}"
            height = 60 + 20 * len(rows)
            chart = Chart(HELD_OUT, "Accuracy by class", caption, _class_bars(rows), wide=True, height=height)
            found.append(chart)
    return found


def _class_bars(rows: list[tuple[str, float, float | None]]) -> Record:
    figure = empty_figure()
    # Bars stand at numbers, not at names: plotly would merge the bars of names that are equal once shortened.
    places = list(range(len(rows)))
    figure["data"] = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [rounded(accuracy) for _, accuracy, _ in rows],
            "y": places,
            "marker": {"color": BLUE},
            "text": [percent(accuracy) for _, accuracy, _ in rows],
            "textposition": "outside",
            "textfont": {"size": 11},
            "cliponaxis": False,
            "hovertext": [f"{label(name)}: {percent(right)} of {number(count)} right" for name, right, count in rows],
            "hoverinfo": "text",
        }
    ]
    figure["layout"] |= {
        "hovermode": "closest",
        "bargap": 0.3,
        "xaxis": {**AXIS, "range": [0, 1.1], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        "yaxis": {
            "tickvals": places,
            "ticktext": [f"{label(name)} " for name, _, _ in rows],
            "tickfont": {"size": 11},
            "range": [-0.6, len(rows) - 0.4],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
    }
    return figure
