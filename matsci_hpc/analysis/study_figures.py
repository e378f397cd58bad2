"""The figures of the report of a scaling study, in plotly's form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from matsci_hpc.analysis.plotting import GREY, PALETTE, empty_figure, label, rounded
from matsci_hpc.analysis.records import Record
from matsci_hpc.analysis.words import number
from matsci_hpc.scaling.efficiency import Estimate
from matsci_hpc.scaling.laws import TITLES
from matsci_hpc.scaling.study import Finding, Study

MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Series differ in colour, marker and dashes, so that print without colour tells them apart, too."""
CURVE_POINTS = 60
LEGEND_LINE = 20
"""Pixels."""
MOST_TICKS = 12


@dataclass(frozen=True)
class Plot:
    """One figure with the words around it."""

    title: str
    caption: str
    figure: Record
    wide: bool = False
    height: int = 280


@dataclass(frozen=True)
class Look:
    """How the n-th series is drawn."""

    color: str
    marker: str
    dash: str


def look(place: int) -> Look:
    """Of the series at a place; colours come again with another marker."""
    return Look(
        PALETTE[place % len(PALETTE)],
        MARKERS[place % len(MARKERS)],
        DASHES[(place // len(PALETTE)) % len(DASHES)],
    )


def plots(study: Study) -> list[Plot]:
    """All figures about scaling, in reading order."""
    if not study.findings:
        return []
    made = [_throughput(study), _efficiency(study), _karp_flatt(study), _residuals(study), _hours(study)]
    legend = LEGEND_LINE * _legend_lines(study)
    return [replace(plot, height=plot.height + legend) for plot in made if plot is not None]


def fine_ranks(finding: Finding, beyond: float = 1.0) -> list[float]:
    """Rank counts along which a law is drawn as a smooth curve."""
    ranks = finding.series.ranks
    return [float(each) for each in np.geomspace(ranks[0], ranks[-1] * beyond, CURVE_POINTS)]


def _throughput(study: Study) -> Plot:
    figure = _frame(study, " or ".join(dict.fromkeys(each.series.unit for each in study.findings)))
    for place, each in enumerate(study.findings):
        points = [(point.ranks, point.throughput) for point in each.efficiency.points]
        figure["data"].append(points_trace(each.series.name, place, points))
        best = each.laws.best
        if best is not None:
            x = fine_ranks(each)
            figure["data"].append(
                curve_trace(f"{each.series.name}: {TITLES[best.law]}", place, x, best.throughput(x).tolist())
            )
        base = next(point for point in each.efficiency.points if point.ranks == each.efficiency.base_ranks)
        ends = [float(each.series.ranks[0]), float(each.series.ranks[-1])]
        ideal = [base.throughput.value * end / base.ranks for end in ends]
        figure["data"].append(ideal_trace(ends, ideal, shown=place == 0))
    figure["layout"]["yaxis"] |= log_axis(
        [point.throughput.value for each in study.findings for point in each.efficiency.points]
    )
    caption = (
        "Mean of the repeats with its interval of 95 %, a law (the preferred one, or, if none is, the usual one), and "
        "the throughput of full efficiency"
    )
    return Plot("Throughput", caption, figure, wide=True, height=380)


def _efficiency(study: Study) -> Plot:
    figure = _frame(study, "parallel efficiency")
    for place, each in enumerate(study.findings):
        points = [(point.ranks, point.efficiency) for point in each.efficiency.points]
        figure["data"].append(points_trace(each.series.name, place, points, connected=True))
    span = [float(min(each.series.ranks[0] for each in study.findings))]
    span.append(float(max(each.series.ranks[-1] for each in study.findings)))
    figure["data"].append(ideal_trace(span, [1.0, 1.0], shown=True))
    figure["layout"]["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    return Plot("Efficiency", "Against the base, with its interval of 95 %", figure)


def _karp_flatt(study: Study) -> Plot | None:
    figure = _frame(study, "Karp-Flatt metric")
    for place, each in enumerate(study.findings):
        points = [(point.ranks, point.karp_flatt) for point in each.efficiency.points if point.karp_flatt]
        if points:
            figure["data"].append(points_trace(each.series.name, place, points, connected=True))
    caption = "Flat: work that is not parallel. Rising: overhead that grows with the ranks"
    return Plot("Karp-Flatt metric", caption, figure) if figure["data"] else None


def _residuals(study: Study) -> Plot | None:
    figure = _frame(study, "measured over law, less 1")
    for place, each in enumerate(study.findings):
        best = each.laws.best
        if best is None:
            continue
        law = best.throughput(each.series.ranks)
        pairs = [
            (int(ranks), float(rate) / float(expected) - 1)
            for ranks, rates, expected in zip(each.series.ranks, each.series.rates, law, strict=True)
            for rate in rates
        ]
        name = f"{each.series.name}: {TITLES[best.law]}"
        figure["data"].append(points_trace(name, place, [(ranks, Estimate(value)) for ranks, value in pairs]))
    figure["layout"]["yaxis"] |= {"tickformat": "+.1%", "zeroline": True, "zerolinecolor": GREY}
    return Plot("Residuals of the law", "Every repeat", figure) if figure["data"] else None


def _hours(study: Study) -> Plot:
    unit = " or ".join(dict.fromkeys(each.efficiency.hours_unit for each in study.findings))
    figure = _frame(study, unit.replace(" per", "<br>per"))
    for place, each in enumerate(study.findings):
        points = [(point.ranks, Estimate(point.node_hours)) for point in each.efficiency.points]
        figure["data"].append(points_trace(each.series.name, place, points, connected=True))
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return Plot("What it costs", unit[0].upper() + unit[1:], figure)


def _legend_lines(study: Study) -> int:
    """Below a figure, where there is room for one name in a line at worst."""
    return len(study.findings) + 1


def _frame(study: Study, y_title: str) -> Record:
    ranks = sorted({int(count) for each in study.findings for count in each.series.ranks})
    return rank_frame(ranks, y_title, _legend_lines(study))


def rank_frame(ranks: Sequence[int], y_title: str, legend_lines: int) -> Record:
    """The frame of a figure over ranks.

    Args:
        ranks: that ticks stand at, ascending.
        y_title: of the other axis.
        legend_lines: below the figure, which is to be so much higher.
    """
    figure = empty_figure(legend=True)
    layout = figure["layout"]
    ticks = ranks if len(ranks) <= MOST_TICKS else [1 << power for power in range(ranks[-1].bit_length())]
    pad = 0.03 * max(1e-6, math.log10(ranks[-1] / ranks[0])) + 0.01
    layout["xaxis"] = {
        **layout["xaxis"],
        "title": {"text": "ranks", "standoff": 6},
        "type": "log",
        "range": [math.log10(ranks[0]) - pad, math.log10(ranks[-1]) + pad],
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
        "tickformat": ",d",
    }
    layout["yaxis"]["title"] = {"text": y_title, "standoff": 8}
    layout["hovermode"] = "closest"
    layout["margin"] |= {"l": 64}
    layout["legend"] |= {"y": 0, "yanchor": "bottom", "yref": "container", "traceorder": "normal"}
    layout["margin"] |= {"t": 16, "b": 60 + LEGEND_LINE * legend_lines}
    return figure


def points_trace(name: str, place: int, points: Sequence[tuple[int, Estimate]], *, connected: bool = False) -> Record:
    """Estimates by number of ranks, with their intervals, in the look of the series at a place."""
    chosen = look(place)
    trace: Record = {
        "type": "scatter",
        "name": label(name),
        "x": [ranks for ranks, _ in points],
        "y": [rounded(estimate.value) for _, estimate in points],
        "mode": "lines+markers" if connected and len(points) > 1 else "markers",
        "marker": {"size": 8, "color": chosen.color, "symbol": chosen.marker},
        "line": {"color": chosen.color, "width": 1.5, "dash": chosen.dash},
        "hovertemplate": "%{x} ranks: %{y:.4g}",
    }
    ends = [
        (estimate.high - estimate.value, estimate.value - estimate.low)
        if estimate.low is not None and estimate.high is not None
        else (0.0, 0.0)
        for _, estimate in points
    ]
    if any(any(pair) for pair in ends):
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [rounded(max(0.0, up)) for up, _ in ends],
            "arrayminus": [rounded(max(0.0, down)) for _, down in ends],
            "color": chosen.color,
            "thickness": 1.2,
            "width": 4,
        }
    return trace


def curve_trace(name: str, place: int, x: Sequence[float], y: Sequence[float]) -> Record:
    """A line without points, in the look of the series at a place."""
    chosen = look(place)
    return {
        "type": "scatter",
        "name": label(name),
        "x": [rounded(value) for value in x],
        "y": [rounded(value) for value in y],
        "mode": "lines",
        "line": {"color": chosen.color, "width": 1.5, "dash": chosen.dash},
        "hoverinfo": "skip",
    }


def ideal_trace(x: Sequence[float], y: Sequence[float], *, shown: bool) -> Record:
    """What full efficiency would be."""
    return {
        "type": "scatter",
        "name": "full efficiency",
        "showlegend": shown,
        "x": list(x),
        "y": [rounded(value) for value in y],
        "mode": "lines",
        "line": {"color": GREY, "width": 1, "dash": "dash"},
        "hoverinfo": "skip",
    }


def log_axis(values: Sequence[float]) -> Record:
    """A logarithmic axis with round numbers."""
    ticks = log_ticks(values)
    return {"type": "log", "tickvals": ticks, "ticktext": tick_words(ticks)}


def tick_words(ticks: Sequence[float]) -> list[str]:
    """The numbers, in as many digits as tell them apart: ticks are round, so 0.5 is no 0.5000."""
    words = [f"{tick:.12g}" if 1e-4 <= abs(tick) < 1000 else number(tick) for tick in ticks]
    return words if len(set(words)) == len(words) else [f"{tick:.12g}" for tick in ticks]


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers along a logarithmic axis, two of them among the values at least."""
    least, most = min(values), max(values)
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    for factors in ((1, 2, 5), range(1, 10)) if high - low <= 3 else ((1,),):
        ticks = [float(f"{factor}e{power}") for power in range(low, high + 1) for factor in factors]
        if sum(least <= tick <= most for tick in ticks) > 1:
            return ticks
    if most - least < 1e-9 * most:
        return [least]
    # Close together: as along a linear axis.
    power = math.floor(math.log10((most - least) / 2))
    step = next(step for factor in (5, 2, 1) if (step := factor * 10.0**power) <= (most - least) / 2)
    return [float(f"{place * step:.12g}") for place in range(math.floor(least / step), math.ceil(most / step) + 1)]
