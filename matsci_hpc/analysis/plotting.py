"""How a curve becomes a plotly figure: colours, smoothing, thinning, layout.

Figures are dicts in plotly's JSON form. Building them needs no import of plotly, which takes a second.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matsci_hpc.analysis.records import Record

Values = Sequence[float | None]

# Okabe and Ito's palette, which stays apart for every kind of colour vision.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#8A8F94"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)

MOST_POINTS = 1200
"""More than this on a line cannot be seen and only makes the file large."""
ENOUGH_TO_SMOOTH = 20

AXIS = {
    "gridcolor": "#E8EAEC",
    "linecolor": "#B9BEC3",
    "tickcolor": "#B9BEC3",
    "zeroline": False,
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
}
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#3A4148"}


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    x: Sequence[int]
    y: Values
    color: str = BLUE
    style: str = "line"
    """A key of `_STYLES`."""


_STYLES: dict[str, Record] = {
    "line": {"mode": "lines", "line": {"width": 2}},
    "faint": {"mode": "lines", "line": {"width": 1}, "opacity": 0.8, "hoverinfo": "skip"},
    "points": {"mode": "lines+markers", "line": {"width": 1, "dash": "dot"}, "marker": {"size": 7}},
    "connected": {"mode": "lines+markers", "line": {"width": 2}, "marker": {"size": 6}},
    "baseline": {"mode": "lines", "line": {"width": 1.5, "dash": "dash"}},
}


def label(text: Any) -> str:
    """Make any text safe to show in a figure, where plotly would read markup."""
    whole = str(text)
    return html.escape(whole if len(whole) <= 40 else whole[:39] + "…", quote=False)


def mean(values: Values) -> float | None:
    """Mean of the values that are there."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def any_value(values: Values) -> bool:
    """Whether there is anything to draw."""
    return any(value is not None for value in values)


def smoothing_window(count: int) -> int:
    """Choose an odd number of neighbours that calms a curve of `count` points and keeps its shape."""
    return min(51, max(3, count // 25)) | 1


def smoothed(values: Values, window: int) -> list[float | None]:
    """Running mean over `window` neighbours, which shrinks at both ends and skips missing values."""
    half = window // 2
    return [mean(values[max(0, index - half) : index + half + 1]) for index in range(len(values))]


def with_smooth(name: str, steps: Sequence[int], values: Values) -> list[Line]:
    """Draw a noisy curve faintly with its running mean on top, or alone if it is short."""
    if len(values) < ENOUGH_TO_SMOOTH:
        return [Line(name, steps, values)]
    window = smoothing_window(len(values))
    return [
        Line(name, steps, values, SKY, "faint"),
        Line(f"{name}, mean of {window} lines", steps, smoothed(values, window)),
    ]


def thinned(x: Sequence[int], y: Values) -> tuple[list[int], list[float | None]]:
    """Average runs of neighbours until at most `MOST_POINTS` are left."""
    stride = max(1, -(-len(x) // MOST_POINTS))
    starts = range(0, len(x), stride)
    last = [min(start + stride, len(x)) - 1 for start in starts]
    return [x[index] for index in last], [rounded(mean(y[start : start + stride])) for start in starts]


def rounded(value: float | None) -> float | None:
    """Keep five digits: no eye sees more, and the file is half as long."""
    return None if value is None else float(f"{value:.5g}")


def spans_decade(values: Iterable[float | None]) -> bool:
    """Whether a log axis shows these values better: all positive, largest over ten times the smallest."""
    present = [value for value in values if value is not None]
    return bool(present) and min(present) > 0 and max(present) > 10 * min(present)


def line_figure(
    lines: Sequence[Line], *, restarts: Sequence[int] = (), log: bool = False, from_zero: bool = False
) -> Record:
    """A figure of curves over steps, with a dotted vertical line at each restart."""
    figure = empty_figure(restarts=restarts, legend=len(lines) > 1)
    span_steps(figure, max((max(line.x, default=0) for line in lines), default=0))
    for line in lines:
        x, y = thinned(line.x, line.y)
        style = _STYLES[line.style]
        trace = {
            "type": "scatter",
            "name": label(line.name),
            "x": x,
            "y": y,
            "hovertemplate": "%{y:.4g}",
            **style,
        }
        if line.style == "faint":
            del trace["hovertemplate"]
        if sum(value is not None for value in y) == 1:
            trace["mode"] = "markers"  # a line through one point is invisible
        trace["line"] = {**style["line"], "color": line.color}
        trace["marker"] = {**style.get("marker", {"size": 7}), "color": line.color}
        figure["data"].append(trace)
    if log:
        figure["layout"]["yaxis"] |= _log_axis([value for line in lines for value in line.y])
    elif from_zero:
        figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def span_steps(figure: Record, last: int) -> None:
    """Let the axis begin at step 0, with room for a marker at the last step, so that charts line up."""
    figure["layout"]["xaxis"]["range"] = [0, 1.015 * last]


def _log_axis(values: Values) -> Record:
    """Axis with ticks at 1, 2 and 5 of each decade, or at the decades where there are many."""
    present = [value for value in values if value is not None]
    low, high = math.floor(math.log10(min(present))), math.ceil(math.log10(max(present)))
    factors = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [float(f"{factor}e{power}") for power in range(low, high + 1) for factor in factors]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def empty_figure(*, restarts: Sequence[int] = (), legend: bool = False) -> Record:
    """The frame that all figures share."""
    return {
        "data": [],
        "layout": {
            "font": FONT,
            "margin": {"l": 48, "r": 20, "t": 36 if legend else 24, "b": 40},
            "showlegend": legend,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.01,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
            },
            "hovermode": "x unified",
            "hoverlabel": {"namelength": -1},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#B9BEC3", "activecolor": "#3A4148"},
            "separators": ".\N{NARROW NO-BREAK SPACE}",
            "xaxis": {
                **AXIS,
                "title": {"text": "step", "standoff": 6},
                "tickformat": ",d",
                "showgrid": False,
            },
            "yaxis": {**AXIS, "automargin": "left"},
            "shapes": [
                {
                    "type": "line",
                    "x0": step,
                    "x1": step,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": "#5B6168", "width": 1, "dash": "dot"},
                }
                for step in restarts
            ],
        },
    }
