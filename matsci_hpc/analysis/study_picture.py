"""Throughput and efficiency of a scaling study as one PNG, for a slide or a paper."""

import io
from typing import Any

from matsci_hpc.analysis.chart_picture import DASHES, MARKERS
from matsci_hpc.analysis.plotting import GREY
from matsci_hpc.analysis.study_figures import fine_ranks, log_ticks, look, tick_words
from matsci_hpc.scaling.efficiency import Estimate
from matsci_hpc.scaling.laws import TITLES
from matsci_hpc.scaling.study import Study

_NAME_LENGTH = 40


def picture(study: Study) -> bytes:
    """The PNG."""
    # Not pyplot: a figure of its own needs no display and leaves no state behind.
    from matplotlib.figure import Figure

    legend_rows = (len(study.findings) + 1) // 2
    figure = Figure(figsize=(9.2, 4.0 + 0.22 * legend_rows), dpi=150, layout="constrained")
    throughput, share = figure.subplots(1, 2)
    for place, each in enumerate(study.findings):
        name = plain_name(each.series.name)
        points = each.efficiency.points
        ranks = [point.ranks for point in points]
        _points(throughput, place, ranks, [point.throughput for point in points], name)
        _points(share, place, ranks, [point.efficiency for point in points], name, connected=True)
        best = each.laws.best
        if best is not None:
            x = fine_ranks(each)
            shown = f"{TITLES[best.law]} law".replace("law law", "law")
            throughput.plot(x, best.throughput(x), color=look(place).color, linewidth=1.2, label=f"{name}: {shown}")
        base = next(point for point in points if point.ranks == each.efficiency.base_ranks)
        ends = [ranks[0], ranks[-1]]
        throughput.plot(
            ends, [base.throughput.value * end / base.ranks for end in ends], color=GREY, linestyle="--", linewidth=0.8
        )
    share.axhline(1.0, color=GREY, linestyle="--", linewidth=0.8)
    units = dict.fromkeys(each.series.unit for each in study.findings)
    for axis, title in ((throughput, f"throughput ({' or '.join(units)})"), (share, "parallel efficiency")):
        _dress(axis, title, sorted({int(count) for each in study.findings for count in each.series.ranks}))
    throughput.set_yscale("log")
    limits = throughput.get_ylim()
    ticks = log_ticks([point.throughput.value for each in study.findings for point in each.efficiency.points])
    throughput.set_yticks(ticks, tick_words(ticks))
    throughput.minorticks_off()  # whose numbers would stand between
    throughput.set_ylim(*limits)
    share.set_ylim(bottom=0)
    share.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    handles, names = throughput.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _points(
    axis: Any, place: int, ranks: list[int], estimates: list[Estimate], name: str, *, connected: bool = False
) -> None:
    chosen = look(place)
    values = [each.value for each in estimates]
    ends = [
        [each.value - each.low if each.low is not None else 0.0 for each in estimates],
        [each.high - each.value if each.high is not None else 0.0 for each in estimates],
    ]
    axis.errorbar(
        ranks,
        values,
        yerr=[[max(0.0, size) for size in side] for side in ends],
        color=chosen.color,
        marker=MARKERS[chosen.marker],
        linestyle=DASHES[chosen.dash] if connected else "none",
        markersize=5,
        linewidth=1.2,
        capsize=2.5,
        label=name,
    )


def _dress(axis: Any, title: str, ranks: list[int]) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("ranks", fontsize=9)
    dress(axis)
    axis.set_xticks(ranks if len(ranks) <= 10 else [1 << power for power in range(ranks[-1].bit_length())])
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.minorticks_off()


def dress(axis: Any) -> None:
    """What all of our pictures share."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, length=3)
    axis.grid(color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)


def plain_name(name: str) -> str:
    """A label that matplotlib does not read as a formula."""
    short = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
    return short.replace("$", r"\$")
