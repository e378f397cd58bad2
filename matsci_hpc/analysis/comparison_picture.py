"""A comparison as one PNG, for a slide or a paper: each metric by training samples, and the differences."""

import io
from collections.abc import Sequence
from typing import Any

from matsci_hpc.analysis.chart_picture import DASHES, MARKERS
from matsci_hpc.analysis.comparison_figures import LOG_FROM, baseline_lines, by_metric, y_title
from matsci_hpc.analysis.plotting import GREY
from matsci_hpc.analysis.study_figures import log_ticks, look, tick_words
from matsci_hpc.analysis.study_picture import dress, plain_name
from matsci_hpc.comparison.findings import Findings, Point

GREY_DASHES = ("--", ":", "-.", "-")
SIDES = 1.3
"""The axis goes from the smallest size over this to the largest times this."""


def comparison_picture(findings: Findings) -> bytes:
    """The PNG."""
    # Not pyplot: a figure of its own needs no display and leaves no state behind.
    from matplotlib.figure import Figure

    rows = by_metric(findings)
    most = max(len(baseline_lines(findings, points)) for points in rows) + len(findings.comparison.arms)
    figure = Figure(figsize=(9.2, 3.6 * len(rows) + 0.22 * ((most + 1) // 2)), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for (left, right), points in zip(axes, rows, strict=True):
        _draw_values(left, findings, points)
        _draw_effects(right, findings, points)
    handles: dict[str, Any] = {}
    for left, _ in axes:
        for handle, name in zip(*left.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw_values(axis: Any, findings: Findings, points: Sequence[Point]) -> None:
    values: list[float] = []
    for place, arm in enumerate(findings.comparison.arms):
        found = [(point.samples, each) for point in points if (each := point.arm(arm)) is not None]
        chosen, beside = look(place), _beside(findings, points, place)
        axis.errorbar(
            [samples * beside for samples, _ in found],
            [each.mean for _, each in found],
            yerr=[each.spread or 0.0 for _, each in found],
            color=chosen.color,
            marker=MARKERS[chosen.marker],
            linestyle=DASHES[chosen.dash],
            markersize=5,
            linewidth=1.2,
            capsize=2.5,
            label=plain_name(arm),
        )
        values += [value for _, each in found for value in each.values]
    # One look for each of them in all rows, for there is one legend.
    every = list(dict.fromkeys(name for row in by_metric(findings) for name, _ in baseline_lines(findings, row)))
    for name, curve in baseline_lines(findings, points):
        # A line between sizes would have no length where there is one size.
        only = [curve[0][0] / SIDES, curve[0][0] * SIDES] if len(curve) == 1 else []
        axis.plot(
            only or [samples for samples, _ in curve],
            [curve[0][1]] * 2 if only else [value for _, value in curve],
            color=GREY,
            linestyle=GREY_DASHES[every.index(name) % len(GREY_DASHES)],
            linewidth=1.0,
            label=plain_name(name),
        )
        values += [value for _, value in curve]
    _dress(axis, f"{plain_name(y_title(points[0]))}, {points[0].better} is better", [each.samples for each in points])
    if min(values) > 0 and max(values) > LOG_FROM * min(values):
        axis.set_yscale("log")
        limits = axis.get_ylim()
        ticks = log_ticks(values)
        axis.set_yticks(ticks, tick_words(ticks))
        axis.minorticks_off()  # whose numbers would stand between
        axis.set_ylim(*limits)


def _draw_effects(axis: Any, findings: Findings, points: Sequence[Point]) -> None:
    for place, arm in enumerate(findings.comparison.arms):
        found = [(point.samples, each.paired) for point in points for each in point.against if each.arm == arm]
        pairs = [(samples, each, each.relative) for samples, each in found if each.relative is not None]
        if not pairs:
            continue
        chosen, beside = look(place), _beside(findings, points, place)
        ends = [
            [value - (each.relative_low if each.relative_low is not None else value) for _, each, value in pairs],
            [(each.relative_high if each.relative_high is not None else value) - value for _, each, value in pairs],
        ]
        axis.errorbar(
            [samples * beside for samples, _, _ in pairs],
            [value for _, _, value in pairs],
            yerr=[[max(0.0, size) for size in side] for side in ends],
            color=chosen.color,
            marker=MARKERS[chosen.marker],
            linestyle="none",
            markersize=5,
            capsize=2.5,
        )
    axis.axhline(0.0, color=GREY, linestyle="--", linewidth=0.8)
    reference = findings.comparison.reference
    _dress(axis, plain_name(f"difference from {reference}, 95 % interval"), [each.samples for each in points])
    low, high = axis.get_ylim()
    digits = next((digits for digits, span in enumerate((0.1, 0.01)) if high - low > span), 2)
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.{digits}f} %")


def _beside(findings: Findings, points: Sequence[Point], place: int) -> float:
    """What the sizes of an arm are multiplied by, so that its bars do not hide those of the others."""
    sizes = [each.samples for each in points]
    middle = (len(findings.comparison.arms) - 1) / 2
    part = 0.1 if len(sizes) == 1 else 0.01
    return float((max(sizes) / min(sizes) * SIDES**2) ** (part * (place - middle)))


def _dress(axis: Any, title: str, sizes: Sequence[int]) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xscale("log")
    axis.set_xlabel("training samples", fontsize=9)
    dress(axis)
    axis.minorticks_off()
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.set_xlim(sizes[0] / SIDES, sizes[-1] * SIDES)
