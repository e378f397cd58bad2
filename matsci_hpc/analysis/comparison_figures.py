"""The figures of the report of a comparison, in plotly's form."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from matsci_hpc.analysis.plotting import GREY, empty_figure, label, rounded
from matsci_hpc.analysis.records import Record
from matsci_hpc.analysis.study_figures import DASHES, LEGEND_LINE, Plot, log_ticks, look, tick_words
from matsci_hpc.analysis.words import number
from matsci_hpc.comparison.findings import Findings, Point
from matsci_hpc.preflight.words import counted

PAD = 0.08
"""Room beside the smallest and the largest size, in decades."""
LOG_FROM = 5
"""Largest over smallest value from which an axis is logarithmic."""
Curve = list[tuple[int, float]]


def comparison_plots(findings: Findings) -> list[Plot]:
    """All figures, in reading order."""
    plots = []
    for points in by_metric(findings):
        plots.append(_sizes(findings, points))
        if any(each.against for each in points):
            plots.append(_effects(findings, points))
    plots += _curves(findings)
    return plots


def by_metric(findings: Findings) -> list[list[Point]]:
    """Points of each metric, sizes ascending."""
    titles = dict.fromkeys(point.title for point in findings.points)
    return [[point for point in findings.points if point.title == title] for title in titles]


def baseline_lines(findings: Findings, points: Sequence[Point]) -> list[tuple[str, Curve]]:
    """Results of others and of no learning along the sizes of the points: a name and its values, ascending."""
    sizes = [point.samples for point in points]
    lines: list[tuple[str, Curve]] = []
    untrained = [(point.samples, point.untrained) for point in points if point.untrained is not None]
    if untrained:
        lines.append(("no learning", untrained))
    metric = points[0].metric
    for name in dict.fromkeys(each.name for each in findings.baselines if each.is_of(metric)):
        mine = [each for each in findings.baselines if each.name == name and each.is_of(metric)]
        curve = sorted((each.train_samples, each.value) for each in mine if each.train_samples is not None)
        level = next((each.value for each in mine if each.train_samples is None), None)
        if level is not None and not curve:
            curve = [(size, level) for size in dict.fromkeys((sizes[0], sizes[-1]))]
        lines.append((name, curve))
    return lines


def curve_of(findings: Findings, arm: str, size: object) -> list[Curve]:
    """The first metric on the held-out split over the run, for each seed of an arm at a size."""
    return [
        [(seen, values[0]) for seen, values in each.curve if values[0] is not None]
        for each in findings.taken
        if each.run.arm == arm and each.run.size == size
    ]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over the seeds, where all of them were evaluated."""
    known = [dict(curve) for curve in curves if curve]
    if not known:
        return []
    common = set.intersection(*(set(each) for each in known))
    return [(seen, fmean(each[seen] for each in known)) for seen in sorted(common)]


def y_title(point: Point) -> str:
    """What a metric is, with its unit."""
    return f"{point.title} ({point.unit})" if point.unit else point.title


def _sizes(findings: Findings, points: Sequence[Point]) -> Plot:
    others = baseline_lines(findings, points)
    figure = _frame(points, y_title(points[0]), len(findings.comparison.arms) + len(others))
    values: list[float] = []
    for place, arm in enumerate(findings.comparison.arms):
        found = [(point.samples, each) for point in points if (each := point.arm(arm)) is not None]
        chosen = look(place)
        figure["data"].append(
            {
                "type": "scatter",
                "name": label(arm),
                "x": [samples for samples, _ in found],
                "y": [rounded(each.mean) for _, each in found],
                "mode": "lines+markers" if len(found) > 1 else "markers",
                "marker": {"size": 8, "color": chosen.color, "symbol": chosen.marker},
                "line": {"color": chosen.color, "width": 1.5, "dash": chosen.dash},
                "error_y": _bars([each.spread or 0.0 for _, each in found], chosen.color),
                "hovertemplate": "%{x} samples: %{y:.4g}",
            }
        )
        figure["data"].append(_seeds([(s, value) for s, each in found for value in each.values], chosen.color))
        values += [value for _, each in found for value in each.values]
    for place, (name, curve) in enumerate(others):
        figure["data"].append(_grey(name, curve, DASHES[(place + 1) % len(DASHES)]))
        values += [value for _, value in curve]
    if min(values) > 0 and max(values) > LOG_FROM * min(values):
        ticks = log_ticks(values)
        figure["layout"]["yaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": tick_words(ticks)}
    caption = f"Mean and standard deviation over the seeds, every run as a small dot; {points[0].better} is better"
    return Plot(f"{points[0].title} by training samples", caption, figure, height=_height(300, figure))


def _effects(findings: Findings, points: Sequence[Point]) -> Plot:
    reference = findings.comparison.reference
    arms = list(findings.comparison.arms)
    figure = _frame(points, f"difference from {label(reference)}", len(arms) - 1)
    for place, arm in enumerate(arms):
        found = [(point.samples, each.paired) for point in points for each in point.against if each.arm == arm]
        found = [(samples, each) for samples, each in found if each.relative is not None]
        if not found:
            continue
        chosen = look(place)
        ends = [
            (each.relative_high - each.relative, each.relative - each.relative_low)
            if each.relative is not None and each.relative_high is not None and each.relative_low is not None
            else (0.0, 0.0)
            for _, each in found
        ]
        bars = _bars([up for up, _ in ends], chosen.color) | {
            "symmetric": False,
            "arrayminus": [rounded(down) for _, down in ends],
        }
        figure["data"].append(
            {
                "type": "scatter",
                "name": label(arm),
                "x": [samples for samples, _ in found],
                "y": [rounded(each.relative) for _, each in found],
                "mode": "markers",
                "marker": {"size": 8, "color": chosen.color, "symbol": chosen.marker},
                "error_y": bars,
                "hovertemplate": "%{x} samples: %{y:+.1%}",
            }
        )
    figure["layout"]["yaxis"] |= {"tickformat": "+.0%", "zeroline": True, "zerolinecolor": GREY}
    caption = f"Mean of the paired differences with its interval of 95 %; {points[0].better} is better"
    return Plot(f"{points[0].title} against {reference}", caption, figure, height=_height(300, figure))


def _curves(findings: Findings) -> Iterator[Plot]:
    """Learning curves of the first metric, a figure for each size."""
    first = by_metric(findings)[0]
    sizes = {each.run.size: each.train_samples for each in findings.taken}
    for size in sorted(sizes, key=lambda size: (sizes[size], str(size))):
        figure = empty_figure(legend=True)
        for place, arm in enumerate(findings.comparison.arms):
            color = look(place).color
            curves = curve_of(findings, arm, size)
            for curve in curves if len(curves) > 1 else []:
                figure["data"].append(_thin(curve, color))
            mean = mean_curve(curves)
            if mean:
                figure["data"].append(_line(arm, mean, place))
        if not figure["data"]:
            continue
        _dress(figure, "samples seen", y_title(first[0]), len(findings.comparison.arms))
        title = f"Learning curve, {counted(sizes[size], 'training sample')}"
        caption = "The held-out split over the run: mean over the seeds, and every run as a thin line"
        yield Plot(title, caption, figure, height=_height(300, figure))


def _frame(points: Sequence[Point], title: str, lines: int) -> Record:
    figure = empty_figure(legend=True)
    _dress(figure, "training samples", title, lines)
    sizes = [point.samples for point in points]
    figure["layout"]["xaxis"] |= {
        "type": "log",
        "range": [math.log10(sizes[0]) - PAD, math.log10(sizes[-1]) + PAD],
        "tickvals": sizes,
        "ticktext": [number(size) for size in sizes],
    }
    return figure


def _dress(figure: Record, x: str, y: str, lines: int) -> None:
    layout = figure["layout"]
    layout["xaxis"] = {**layout["xaxis"], "title": {"text": x, "standoff": 6}}
    layout["yaxis"]["title"] = {"text": label(y), "standoff": 8}
    layout["hovermode"] = "closest"
    layout["legend"] |= {"y": 0, "yanchor": "bottom", "yref": "container", "traceorder": "normal"}
    layout["margin"] |= {"l": 64, "t": 16, "b": 60 + LEGEND_LINE * lines}


def _height(plot: int, figure: Record) -> int:
    """Of a figure whose legend stands below it."""
    return plot + int(figure["layout"]["margin"]["b"]) - 60


def _bars(ends: Sequence[float], color: str) -> Record:
    return {"type": "data", "array": [rounded(end) for end in ends], "color": color, "thickness": 1.2, "width": 4}


def _seeds(pairs: Curve, color: str) -> Record:
    return {
        "type": "scatter",
        "x": [x for x, _ in pairs],
        "y": [rounded(y) for _, y in pairs],
        "mode": "markers",
        "marker": {"size": 4, "color": color, "opacity": 0.45},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _grey(name: str, curve: Curve, dash: str) -> Record:
    return {
        "type": "scatter",
        "name": label(name),
        "x": [x for x, _ in curve],
        "y": [rounded(y) for _, y in curve],
        "mode": "lines+markers",
        "marker": {"size": 5, "color": GREY},
        "line": {"color": GREY, "width": 1.2, "dash": dash},
        "hovertemplate": "%{y:.4g}",
    }


def _thin(curve: Curve, color: str) -> Record:
    return {
        "type": "scatter",
        "x": [x for x, _ in curve],
        "y": [rounded(y) for _, y in curve],
        "mode": "lines",
        "line": {"color": color, "width": 0.8},
        "opacity": 0.4,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _line(name: str, curve: Curve, place: int) -> Record:
    chosen = look(place)
    return {
        "type": "scatter",
        "name": label(name),
        "x": [x for x, _ in curve],
        "y": [rounded(y) for _, y in curve],
        "mode": "lines+markers",
        "marker": {"size": 6, "color": chosen.color, "symbol": chosen.marker},
        "line": {"color": chosen.color, "width": 2, "dash": chosen.dash},
        "hovertemplate": "%{x} seen: %{y:.4g}",
    }
