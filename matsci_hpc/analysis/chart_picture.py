"""The charts of a page as one PNG: the same figures, drawn by matplotlib, which needs no browser."""

import html
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from matsci_hpc.analysis.plotting import GREY
from matsci_hpc.analysis.records import Record

WIDTH = 12.0
"""Inches, of two charts side by side."""
PIXELS_PER_INCH = 80
"""Of the heights of charts."""
DPI = 100
LETTERS_WIDE, LETTERS_HALF = 170, 80
"""Of a line of a caption."""
MOST_PIXELS = 60_000
"""Of the height of a picture; matplotlib draws up to 65,536."""
MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "x", "star": "*", "triangle-down": "v",
    "pentagon": "p",
}  # fmt: skip
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


class Drawn(Protocol):
    """A figure in plotly's form with the words around it."""

    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def caption(self) -> str: ...  # noqa: D102
    @property
    def figure(self) -> Record: ...  # noqa: D102
    @property
    def wide(self) -> bool: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102


def picture(charts: Sequence[Drawn]) -> bytes:
    """The charts in their order, two in a row unless they are wide.

    It draws what our figures have: curves, points with intervals, stacked areas, bars and maps of colours, on linear
    and logarithmic axes.

    Args:
        charts: at least one.

    Returns:
        A PNG file; the same charts give the same bytes.
    """
    # Not pyplot: a figure of its own needs no display and leaves no state behind.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = _rows(charts)
    heights = [max(chart.height for chart in row) / PIXELS_PER_INCH + 0.7 for row in rows]
    dpi = min(DPI, MOST_PIXELS / sum(heights))
    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12)  # inches
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=dpi, layout=layout)
    grid = figure.add_gridspec(len(rows), 2, height_ratios=heights)
    for number, row in enumerate(rows):
        places = [grid[number, :]] if row[0].wide else [grid[number, 0], grid[number, 1]]
        for place, chart in zip(places, row, strict=False):
            _draw(figure.add_subplot(place), chart)
    stream = io.BytesIO()
    with warnings.catch_warnings():  # a name may hold letters that the font lacks
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _rows(charts: Sequence[Drawn]) -> list[list[Drawn]]:
    rows: list[list[Drawn]] = []
    for chart in charts:
        if rows and not chart.wide and len(rows[-1]) == 1 and not rows[-1][0].wide:
            rows[-1].append(chart)
        else:
            rows.append([chart])
    return rows


def _draw(axis: Any, chart: Drawn) -> None:
    layout = chart.figure["layout"]
    stacked: dict[Any, float] = {}
    for trace in chart.figure["data"]:
        _TRACES[trace.get("type", "scatter")](axis, trace, stacked)
    _dress(axis.xaxis, layout["xaxis"])
    _dress(axis.yaxis, layout["yaxis"])
    for shape in layout.get("shapes", ()):  # restarts
        axis.axvline(shape["x0"], color=GREY, linestyle=":", linewidth=0.9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, length=3)
    axis.set_axisbelow(True)
    caption = textwrap.wrap(_words(chart.caption), LETTERS_WIDE if chart.wide else LETTERS_HALF)
    axis.set_title(_words(chart.title) + "\n" * len(caption), loc="left", fontsize=10, fontweight="bold")
    axis.annotate(
        "\n".join(caption),
        (0, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color="#626a72",
        linespacing=1.1,
    )
    handles, _ = axis.get_legend_handles_labels()
    if layout.get("showlegend") and handles:
        axis.legend(
            loc="upper left",
            bbox_to_anchor=(0, -0.16),
            ncols=4 if chart.wide else 2,
            frameon=False,
            fontsize=8,
        )


def _dress(axis: Any, of: Record) -> None:
    """Scale, limits, ticks and title of one axis."""
    which = axis.axis_name
    parent = axis.axes
    limits: Callable[..., Any] = getattr(parent, f"set_{which}lim")
    low, high = getattr(parent, f"get_{which}lim")()
    if of.get("type") == "log":
        getattr(parent, f"set_{which}scale")("log")
        axis.set_minor_locator(_no_ticks())
    elif of.get("rangemode") == "tozero":
        limits(min(low, 0.0), max(high, 0.0) or 1.0)
    elif (shown := of.get("autorangeoptions", {}).get("include")) is not None:
        limits(min(low, shown), max(high, shown))
    if "range" in of:
        start, end = of["range"]
        if of.get("type") == "log":
            start, end = 10.0**start, 10.0**end
        limits(start, end if end > start else start + 1.0)
    if "tickvals" in of:
        kept = getattr(parent, f"get_{which}lim")()
        words = of.get("ticktext")
        axis.set_ticks(of["tickvals"], None if words is None else [_words(word) for word in words])
        limits(*kept)
    if "tickangle" in of:
        axis.set_tick_params(rotation=-of["tickangle"])  # that of plotly is clockwise
    if "ticktext" not in of and (form := _format_of(of.get("tickformat", ""))) is not None:
        axis.set_major_formatter(form)
    if of.get("showgrid", True):
        axis.grid(color="#e8eaec", linewidth=0.7)
    if title := of.get("title", {}).get("text"):
        axis.set_label_text(_words(title), fontsize=9)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _format_of(pattern: str) -> Callable[[float, Any], str] | None:
    """What the number formats of our figures say, `.0%`, `+.1%` and `,d`; None for another."""
    if percent := re.fullmatch(r"(\+?)\.(\d)%", pattern):
        sign, digits = percent.groups()
        return lambda value, _: f"{100 * value:{sign}.{digits}f} %"
    if pattern == ",d":
        return lambda value, _: f"{value:,.0f}"
    return None


def _scatter(axis: Any, trace: Record, stacked: dict[Any, float]) -> None:
    x, y = trace["x"], [float("nan") if value is None else value for value in trace["y"]]
    name = _name_of(trace)
    if "stackgroup" in trace:
        bottom = [stacked.get(place, 0.0) for place in x]
        top = [low + (value or 0.0) for low, value in zip(bottom, trace["y"], strict=True)]
        stacked |= dict(zip(x, top, strict=True))
        axis.fill_between(x, bottom, top, color=trace["fillcolor"], linewidth=0, label=name)
        return
    marker, line = trace.get("marker", {}), trace.get("line", {})
    mode = trace.get("mode", "lines")
    color = line.get("color") or marker.get("color")
    look = {
        "color": color,
        "linewidth": 0.7 * line.get("width", 2),
        "linestyle": DASHES[line.get("dash", "solid")] if "lines" in mode else "none",
        "alpha": trace.get("opacity", 1.0),
    }
    sizes = marker.get("size", 6)
    if "markers" in mode and not isinstance(sizes, list):
        look |= {"marker": MARKERS[marker.get("symbol", "circle")], "markersize": 0.7 * sizes}
        look |= {"markerfacecolor": marker.get("color", color), "markeredgecolor": marker.get("color", color)}
    errors = trace.get("error_y")
    if errors is not None:
        ends = [errors["arrayminus"], errors["array"]]
        axis.errorbar(x, y, yerr=ends, capsize=2.5, elinewidth=1.0, label=name, **look)
    else:
        axis.plot(x, y, label=name, **look)
    if isinstance(sizes, list):  # of each point
        axis.scatter(x, y, s=[0.5 * size**2 for size in sizes], color=marker.get("color", color), zorder=3)


def _bars(axis: Any, trace: Record, stacked: dict[Any, float]) -> None:
    values = [value or 0.0 for value in (trace["x"] if trace.get("orientation") == "h" else trace["y"])]
    if trace.get("orientation") == "h":
        axis.barh(trace["y"], values, height=0.7, color=trace["marker"]["color"], label=_name_of(trace))
        for place, value, text in zip(trace["y"], values, trace.get("text", ()), strict=False):
            axis.text(value, place, f" {_words(text)}", va="center", fontsize=8)
        return
    places = trace["x"]
    width = 0.9 * min((after - before for before, after in pairwise(places)), default=1.0)
    bottom = [stacked.get(place, 0.0) for place in places]
    axis.bar(places, values, width=width, bottom=bottom, color=trace["marker"]["color"], label=_name_of(trace))
    for place, low, value in zip(places, bottom, values, strict=True):
        stacked[place] = low + value


def _heatmap(axis: Any, trace: Record, stacked: dict[Any, float]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    del stacked
    colors = LinearSegmentedColormap.from_list("ranks", [(place, color) for place, color in trace["colorscale"]])
    options = {"cmap": colors, "vmin": trace["zmin"], "vmax": trace["zmax"], "shading": "nearest"}
    x, y = trace["x"], trace["y"]
    axis.yaxis.get_major_locator().set_params(integer=True)
    values = [[float("nan") if value is None else value for value in row] for row in trace["z"]]
    drawn = axis.pcolormesh(x, y, values, **options)
    for place, row in zip(y, trace.get("text", ()), strict=False):
        for column, text in zip(x, row, strict=True):
            axis.text(column, place, _words(text), ha="center", va="center", fontsize=7)
    axis.figure.colorbar(drawn, ax=axis, pad=0.01).ax.tick_params(labelsize=8)


_TRACES: dict[str, Callable[[Any, Record, dict[Any, float]], None]] = {
    "scatter": _scatter,
    "bar": _bars,
    "heatmap": _heatmap,
}


def _name_of(trace: Record) -> str | None:
    """For the legend, where names that begin with an underscore would be left out."""
    if not trace.get("showlegend", True) or not trace.get("name"):
        return None
    name = _words(trace["name"])
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


def _words(text: Any) -> str:
    """Text that is shown as it is: figures hold it escaped for a page, and a dollar would begin a formula."""
    plain = html.unescape(re.sub(r"<br>", "\n", str(text)))
    return plain.encode(errors="replace").decode().replace("$", r"\$")
