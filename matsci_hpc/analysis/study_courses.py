"""The course of the losses of a study: a table, and figures against samples, time and steps."""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from matsci_hpc.analysis.chart_picture import DASHES
from matsci_hpc.analysis.plotting import MOST_POINTS, empty_figure, label, rounded, smoothed, spans_decade
from matsci_hpc.analysis.records import Record
from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.analysis.study_figures import LEGEND_LINE, Plot, log_ticks, look, tick_words
from matsci_hpc.analysis.study_picture import dress, plain_name
from matsci_hpc.analysis.words import MISSING, number, percent
from matsci_hpc.scaling.study_courses import Course

LAST = 0.1
"""Part of a course whose mean loss counts as the last one: a single step says more of its batch than of the model."""
SETTLED = 20
"""Steps after which Adam's ratio and the likeness of gradients say something: 2 / (1 - 0.9)."""
MOST_DRAWN = 16
"""More curves in one figure cannot be told apart."""

HIGH = 3.0
"""Losses above so many times the largest first one are cut off: a run that blows up would hide all others."""
SMOOTH = 15
"""Lines of the running mean of what jumps from step to step."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Kind:
    """Runs that are alike but for their repeat.

    Attributes:
        name: axes with more than one value, as `name=value`.
        courses: of the repeats.
    """

    name: str
    courses: tuple[Course, ...]

    @property
    def drawn(self) -> Course:
        """The one that is drawn: the first repeat. All train from the same seed."""
        return self.courses[0]


def kinds_of(courses: Iterable[Course]) -> list[Kind]:
    """Repeats together, by labels and then ranks; labels of one value in all of them are not named."""
    groups: dict[tuple[tuple[tuple[str, str], ...], int, int], list[Course]] = {}
    for each in sorted(courses, key=lambda course: course.repeat):
        groups.setdefault((tuple(each.labels.items()), each.world, each.ranks), []).append(each)
    labels = [dict(key[0]) for key in groups]
    varied = {name for each in labels for name in each if len({other.get(name) for other in labels}) > 1}
    # The world follows from ranks and virtual ranks, and is what the optimiser sees.
    virtual = any(course.world != course.ranks for key in groups for course in groups[key])
    varied -= {"virtual_ranks", "parallel.virtual_ranks"} if virtual else set()
    several = len({ranks for _, _, ranks in groups}) > 1
    kinds = []
    for (names, world, ranks), found in sorted(groups.items(), key=lambda item: (_in_order(item[0][0]), item[0][1:])):
        words = [f"{name}={value}" for name, value in names if name in varied]
        words.append(f"{world} ranks" if world != 1 else "1 rank")
        if virtual and several:
            words[-1] += f" ({ranks} real)"
        kinds.append(Kind(", ".join(words), tuple(found)))
    return kinds


def _in_order(names: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(value for name, value in names if "virtual_ranks" not in name)


def course_sheet(kinds: Sequence[Kind]) -> Sheet:
    """How each kind of run ended, and what its optimiser did."""
    columns = (
        "runs", "repeats", "steps", "samples", "last loss", "least loss", "spikes", "rollbacks",
        "ratio beyond 0.9", "autocorrelation", "noise scale",
    )  # fmt: skip
    rows = []
    for kind in kinds:
        first = kind.drawn
        looks = [look for look in first.looks if look.step >= SETTLED] or first.looks
        shares = [look.share_beyond for look in looks if look.share_beyond is not None]
        likeness = [look.autocorrelation for look in looks if look.autocorrelation is not None]
        noise = next((look.noise_scale for look in reversed(first.looks) if look.noise_scale is not None), None)
        spikes = Cell(number(len(first.spikes)), f"first at step {number(first.spikes[0][0])}" if first.spikes else "")
        rows.append(
            (
                Cell(kind.name, _ended(first)),
                Cell(number(len(kind.courses))),
                Cell(number(first.steps[-1][0]) if first.steps else MISSING),
                Cell(number(first.steps[-1][1]) if first.steps else MISSING),
                Cell(number(last_loss(first))),
                Cell(number(min((loss for *_, loss in first.steps), default=None))),
                spikes,
                Cell(number(first.rollbacks)),
                Cell(percent(median(shares)), f"at most {percent(max(shares))}") if shares else Cell(MISSING),
                Cell(number(median(likeness), 2), f"at most {number(max(likeness), 2)}") if likeness else Cell(MISSING),
                Cell(number(noise, 3)),
            )
        )
    caption = (
        f"Of the first repeat; all repeats train from one seed. Last loss: mean over the last {LAST:.0%} of its lines. "
        "Ratio beyond 0.9: share of the parameters whose Adam ratio m / (sqrt(v) + eps) lies there, the median of the "
        f"lines from step {SETTLED} on, of a shorter run of all; autocorrelation of gradients with those of the step "
        "before: 0 is none, 1 is the same direction; noise scale: batch at which noise and signal of the gradient are "
        "alike, in graphs, at the end."
    )
    return Sheet("Loss and its dynamics", caption, columns, tuple(rows))


def _ended(course: Course) -> str:
    """That a run did not reach its end; the whole reason stands in incomplete.txt."""
    if course.ended is None:
        return ""
    last = course.steps[-1][0] if course.steps else 0
    return f"ended early, after step {number(last)}"


def last_loss(course: Course) -> float | None:
    """Mean loss over the last part of a course."""
    count = max(1, math.ceil(LAST * len(course.steps)))
    return fmean(loss for *_, loss in course.steps[-count:]) if course.steps else None


def course_plots(kinds: Sequence[Kind]) -> list[Plot]:
    """Figures of the first `MOST_DRAWN` kinds."""
    drawn = list(kinds[:MOST_DRAWN])
    some = f"; the first {MOST_DRAWN} of {len(kinds)} kinds of runs" if len(kinds) > len(drawn) else ""
    made = [
        _figure(
            drawn, "Training loss against samples", f"A large point marks a spike{some}", "samples", "loss",
            lambda course: [(float(samples), loss) for _, samples, _, loss in course.steps], wide=True,
        ),
        _figure(
            drawn, "Training loss against time", "From the first step of a run", "time in seconds", "loss",
            lambda course: [(time_s, loss) for _, _, time_s, loss in course.steps],
        ),
        _figure(
            drawn, "Training loss against steps", "The same number of updates", "step", "loss",
            lambda course: [(float(step), loss) for step, _, _, loss in course.steps],
        ),
        _figure(
            drawn, "Updates that line up", "Share of the parameters whose Adam ratio lies beyond 0.9", "step",
            "share beyond 0.9", lambda course: _of_looks(course, lambda look: look.share_beyond),
        ),
        _figure(
            drawn, "Gradients that repeat",
            f"Autocorrelation of gradients with those of the step before, mean of {SMOOTH} lines", "step",
            "autocorrelation", lambda course: _evened(_of_looks(course, lambda look: look.autocorrelation)),
        ),
    ]  # fmt: skip
    return [plot for plot in made if plot is not None]


def _of_looks(course: Course, pick: Callable[[Any], float | None]) -> Points:
    found = [(float(look.step), pick(look)) for look in course.looks]
    return [(step, value) for step, value in found if value is not None]


def _evened(points: Points) -> Points:
    """The running mean of points."""
    values = smoothed([y for _, y in points], SMOOTH)
    return [(x, y) for (x, _), y in zip(points, values, strict=True) if y is not None]


def ceiling(kinds: Sequence[Kind]) -> float | None:
    """Where losses are cut off; None where none is that high."""
    found = [kind.drawn.steps for kind in kinds if kind.drawn.steps]
    top = HIGH * max((steps[0][3] for steps in found), default=math.inf)
    return top if any(loss > top for steps in found for *_, loss in steps) else None


def _figure(
    kinds: Sequence[Kind],
    title: str,
    caption: str,
    x_title: str,
    y_title: str,
    pick: Callable[[Course], Points],
    *,
    wide: bool = False,
) -> Plot | None:
    curves = [(kind, pick(kind.drawn)) for kind in kinds]
    curves = [(kind, points) for kind, points in curves if points]
    if not curves:
        return None
    figure = empty_figure(legend=True)
    layout = figure["layout"]
    for place, (kind, points) in enumerate(curves):
        figure["data"].append(_line(kind.name, place, points))
        if y_title == "loss" and (spikes := _at_spikes(kind.drawn, points)):
            figure["data"].append(_marks(place, spikes))
    layout["xaxis"]["title"] = {"text": x_title, "standoff": 6}
    span = [x for _, points in curves for x, _ in points]
    if x_title == "samples" and spans_decade(span):
        ticks = log_ticks(span)
        layout["xaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": tick_words(ticks)}
    if x_title == "time in seconds":
        layout["xaxis"]["tickformat"] = ",.4~g"
    values = [y for _, points in curves for _, y in points]
    layout["yaxis"]["title"] = {"text": y_title, "standoff": 8}
    top = ceiling(kinds) if y_title == "loss" else None
    if top is not None:
        caption += f"; losses above {top:.3g} are cut off"
        layout["yaxis"]["range"] = [max(0.0, 0.9 * min(values)), top]
    elif y_title == "loss" and spans_decade(values):
        ticks = log_ticks(values)
        layout["yaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": tick_words(ticks)}
    elif y_title == "share beyond 0.9":
        layout["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    layout["hovermode"] = "closest"
    layout["legend"] |= {"y": 0, "yanchor": "bottom", "yref": "container", "traceorder": "normal"}
    legend = LEGEND_LINE * (len(curves) + 1)
    layout["margin"] |= {"l": 64, "t": 16, "b": 60 + legend}
    return Plot(title, caption, figure, wide=wide, height=(380 if wide else 300) + legend)


def _line(name: str, place: int, points: Points) -> Record:
    chosen = look(place)
    thin = _thinned(points)
    return {
        "type": "scatter",
        "name": label(name),
        "x": [rounded(x) for x, _ in thin],
        "y": [rounded(y) for _, y in thin],
        "mode": "lines" if len(thin) > 1 else "markers",
        "line": {"color": chosen.color, "width": 1.5, "dash": chosen.dash},
        "hovertemplate": "%{x}: %{y:.4g}",
    }


def _marks(place: int, points: Points) -> Record:
    chosen = look(place)
    return {
        "type": "scatter",
        "name": "spike",
        "showlegend": False,
        "x": [rounded(x) for x, _ in points],
        "y": [rounded(y) for _, y in points],
        "mode": "markers",
        "marker": {"size": 9, "color": chosen.color, "symbol": chosen.marker},
        "hovertemplate": "spike: %{y:.4g}",
    }


def _at_spikes(course: Course, points: Points) -> Points:
    """The points of the curve where spikes begin; those that the run went back from are no part of it."""
    places = {step: place for place, (step, *_) in enumerate(course.steps)}
    return [points[places[look.step]] for look in course.looks if look.spike is not None and look.step in places]


def _thinned(points: Points) -> Points:
    """Every n-th point, and of those between the highest and the lowest: a spike must not be averaged away."""
    stride = -(-len(points) // (MOST_POINTS // 3))
    if stride <= 1:
        return points
    kept: Points = []
    for start in range(0, len(points), stride):
        part = points[start : start + stride]
        chosen = {0, max(range(len(part)), key=lambda place: part[place][1])}
        chosen.add(min(range(len(part)), key=lambda place: part[place][1]))
        kept += [part[place] for place in sorted(chosen)]
    return kept


def course_picture(kinds: Sequence[Kind]) -> bytes:
    """Loss against samples and the share of Adam ratios beyond 0.9 against steps, as a PNG."""
    from matplotlib.figure import Figure

    drawn = list(kinds[:MOST_DRAWN])
    figure = Figure(figsize=(9.2, 4.2 + 0.2 * ((len(drawn) + 1) // 2)), dpi=150, layout="constrained")
    losses, shares = figure.subplots(1, 2)
    for place, kind in enumerate(drawn):
        chosen = look(place)
        style = {"color": chosen.color, "linestyle": DASHES[chosen.dash], "linewidth": 1.1}
        points = _thinned([(float(samples), loss) for _, samples, _, loss in kind.drawn.steps])
        losses.plot([x for x, _ in points], [y for _, y in points], label=plain_name(kind.name), **style)
        found = _of_looks(kind.drawn, lambda look: look.share_beyond)
        shares.plot([x for x, _ in found], [y for _, y in found], **style)
    losses.set(xlabel="samples", ylabel="training loss")
    shares.set(xlabel="step", ylabel="share of Adam ratios beyond 0.9", ylim=(0, None))
    shares.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    seen = [course for kind in drawn if (course := kind.drawn).steps]
    if spans_decade([float(samples) for course in seen for _, samples, *_ in course.steps]):
        losses.set_xscale("log")
    if (top := ceiling(drawn)) is not None:
        losses.set_ylim(0.9 * min(loss for course in seen for *_, loss in course.steps), top)
    elif spans_decade([loss for course in seen for *_, loss in course.steps]):
        losses.set_yscale("log")
    for axis in (losses, shares):
        dress(axis)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
