"""The figures of the page of a prediction, in plotly's form."""

from collections.abc import Sequence

from matsci_hpc.analysis.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, empty_figure, rounded
from matsci_hpc.analysis.study_figures import (
    LEGEND_LINE,
    Plot,
    curve_trace,
    ideal_trace,
    log_axis,
    points_trace,
    rank_frame,
)
from matsci_hpc.analysis.words import number
from matsci_hpc.scaling.efficiency import Estimate
from matsci_hpc.scaling.prediction import Prediction
from matsci_hpc.scaling.study_forecast import SeriesForecast

PARTS = {
    "compute": ("computing", BLUE),
    "fixed": ("whatever the share", SKY),
    "imbalance": ("imbalance", ORANGE),
    "noise": ("noise", PURPLE),
    "latency": ("number of messages", VERMILION),
    "bandwidth": ("size of messages", GREEN),
    "input": ("input", GREY),
}
"""Parts of a step, in words, and their colours."""
MOST_PARTS = 4
"""Series whose parts are drawn, each in a figure of its own."""


def plots(series: Sequence[SeriesForecast]) -> list[Plot]:
    """All figures, in reading order."""
    return [_steps(series), _efficiency(series), *(_parts(each) for each in series[:MOST_PARTS])]


def _name(series: SeriesForecast, what: str) -> str:
    return f"{series.name}: {what}" if series.name else what


def _ranks(series: Sequence[SeriesForecast]) -> list[int]:
    return sorted({each.ranks for one in series for each in one.forecast.predictions})


def _steps(series: Sequence[SeriesForecast]) -> Plot:
    lines = 2 * len(series)
    figure = rank_frame(_ranks(series), "time of a step / s", lines)
    values: list[float] = []
    for place, each in enumerate(series):
        found = each.forecast.predictions
        _add_prediction(figure, _name(each, "predicted"), place, found, [one.step_s for one in found])
        values += [one.step_s for one in found]
        steps = [(ranks, known.step_s) for ranks, known in each.measured.items()]
        values += [step.value for _, step in steps]
        if steps:
            figure["data"].append(points_trace(_name(each, "measured"), place, steps))
    figure["layout"]["yaxis"] |= log_axis(values)
    caption = "Curves: predicted; points: measured, mean of the repeats with its interval of 95 %"
    return Plot("Time of a step", caption, figure, wide=True, height=380 + LEGEND_LINE * lines)


def _efficiency(series: Sequence[SeriesForecast]) -> Plot:
    lines = 2 * len(series) + 1
    figure = rank_frame(_ranks(series), "parallel efficiency", lines)
    for place, each in enumerate(series):
        found = each.forecast.predictions
        _add_prediction(figure, _name(each, "predicted"), place, found, [one.efficiency for one in found])
        shares = [(ranks, known.efficiency) for ranks, known in each.measured.items() if known.efficiency is not None]
        if shares:
            figure["data"].append(points_trace(_name(each, "measured"), place, shares))
    ends = _ranks(series)
    figure["data"].append(ideal_trace([float(ends[0]), float(ends[-1])], [1.0, 1.0], shown=True))
    figure["layout"]["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    caption = "Against the smallest number of ranks; curves: predicted, points: measured"
    return Plot("Efficiency", caption, figure, wide=True, height=320 + LEGEND_LINE * lines)


def _add_prediction(
    figure: dict[str, list[object]], name: str, place: int, found: Sequence[Prediction], values: Sequence[float]
) -> None:
    """A curve, or a point where there is one number of ranks only, through which no line is seen."""
    if len(found) > 1:
        figure["data"].append(curve_trace(name, place, [float(one.ranks) for one in found], values))
    else:
        figure["data"].append(points_trace(name, place, [(found[0].ranks, Estimate(values[0]))]))


def _parts(series: SeriesForecast) -> Plot:
    """Stacked bars at equal distances, since ranks grow by factors."""
    figure = empty_figure(legend=True)
    found = series.forecast.predictions
    places = list(range(len(found)))
    for key, (name, color) in PARTS.items():
        shares = [getattr(each.parts, key) / each.step_s for each in found]
        if any(shares):
            figure["data"].append(
                {
                    "type": "bar",
                    "name": name,
                    "x": places,
                    "y": [rounded(share) for share in shares],
                    "marker": {"color": color},
                    "hovertemplate": "%{y:.1%}",
                }
            )
    layout = figure["layout"]
    layout |= {"barmode": "stack", "bargap": 0.25}
    layout["xaxis"] |= {
        "title": {"text": "ranks", "standoff": 6},
        "tickvals": places,
        "ticktext": [number(each.ranks) for each in found],
    }
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    layout["legend"] |= {"y": 0, "yanchor": "bottom", "yref": "container", "traceorder": "normal"}
    layout["margin"] |= {"t": 16, "b": 60 + 2 * LEGEND_LINE}
    caption = "Share of each part of a step" + (f"; {series.name}" if series.name else "")
    return Plot("Where a step's time goes", caption, figure, height=300 + 2 * LEGEND_LINE)
