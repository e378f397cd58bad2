"""Charts of what the optimiser did to the model, and of the spikes of the loss."""

from collections.abc import Callable, Iterator

from matsci_hpc.analysis.chart import DYNAMICS, Chart
from matsci_hpc.analysis.plotting import (
    PALETTE,
    PURPLE,
    VERMILION,
    Line,
    any_value,
    empty_figure,
    line_figure,
    rounded,
    span_steps,
    spans_decade,
)
from matsci_hpc.analysis.records import Record, Run, as_mapping, as_number
from matsci_hpc.analysis.words import number

MOST_GROUPS = 12
"""Layer groups drawn, those with most parameters."""
LAGS = (1, 2, 4, 8)
MOST_SPIKES = 30
"""Spikes marked in a chart."""


def dynamics_charts(run: Run) -> list[Chart]:
    """Every chart that dynamics.jsonl can fill."""
    if not run.dynamics:
        return []
    made = [
        _spikes(run),
        _share_beyond(run),
        _histogram(run),
        _autocorrelation(run),
        _noise_scale(run),
        _clipped(run),
    ]
    return [*(chart for chart in made if chart is not None), *_norms(run)]


def _series(run: Run, pick: Callable[[Record], object]) -> list[float | None]:
    return [as_number(pick(line)) for line in run.dynamics]


def _steps(run: Run) -> list[int]:
    return [int(line["step"]) for line in run.dynamics]


def _groups(run: Run) -> list[str]:
    """The largest layer groups, in the order of the model."""
    groups = as_mapping(run.dynamics[-1].get("groups"))
    sizes = {name: as_number(as_mapping(group).get("parameters")) or 0.0 for name, group in groups.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_GROUPS]
    return [name for name in groups if name in largest]


def _of_group(line: Record, group: str, *keys: str) -> object:
    found: object = as_mapping(as_mapping(line.get("groups")).get(group))
    for key in keys:
        found = as_mapping(found).get(key)
    return found


def _by_group(run: Run, *keys: str) -> Iterator[Line]:
    for index, group in enumerate(_groups(run)):
        values = _series(run, lambda line: _of_group(line, group, *keys))  # noqa: B023 - called at once
        if any_value(values):
            yield Line(group, _steps(run), values, PALETTE[index % len(PALETTE)])


def _spikes(run: Run) -> Chart | None:
    """The loss around spikes, which lines of metrics may be too far apart to show."""
    if not run.spikes:
        return None
    figure = empty_figure(legend=True)
    for index, line in enumerate(run.spikes[-MOST_SPIKES:]):
        before = as_mapping(line["spike"]).get("before")
        rows = [as_mapping(each) for each in before] if isinstance(before, list) else []
        points = [(as_number(row.get("step")), as_number(row.get("loss"))) for row in rows]
        points.append((as_number(line["step"]), as_number(line.get("loss"))))
        figure["data"].append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "loss before a spike",
                "showlegend": index == 0,
                "x": [x for x, _ in points],
                "y": [rounded(y) for _, y in points],
                "line": {"color": PURPLE, "width": 1},
                "marker": {"size": [4] * (len(points) - 1) + [10], "color": VERMILION},
                "hovertemplate": "%{y:.4g}",
            }
        )
    last = max([run.last_step, *(int(line["step"]) for line in run.spikes)])
    span_steps(figure, last)
    shown = ", ".join(number(line["step"]) for line in run.spikes[:8]) + (", ..." if len(run.spikes) > 8 else "")
    many = "spike" if len(run.spikes) == 1 else "spikes"
    caption = f"{len(run.spikes)} {many}, at step {shown}; large points, with the steps before them"
    if run.rollbacks:
        steps = ", ".join(f"{number(each.get('spike_step'))} to {number(each['step'])}" for each in run.rollbacks[:8])
        caption += f"; rolled back from step {steps}"
    return Chart(DYNAMICS, "Spikes of the loss", caption, figure, wide=True)


def _share_beyond(run: Run) -> Chart | None:
    lines = list(_by_group(run, "ratio", "share_beyond"))
    if not lines:
        return None
    figure = line_figure(lines, restarts=run.restarts, from_zero=True)
    figure["layout"]["yaxis"]["tickformat"] = ".1%"
    caption = "Share of the parameters whose Adam ratio m / (sqrt(v) + eps) lies beyond 0.9, by layer group"
    return Chart(DYNAMICS, "Updates that line up", caption, figure, wide=True)


def _histogram(run: Run) -> Chart | None:
    """The distribution of r at the last record, all groups together."""
    ratios = [
        as_mapping(as_mapping(group).get("ratio")) for group in as_mapping(run.dynamics[-1].get("groups")).values()
    ]
    rows = [each["histogram"] for each in ratios if isinstance(each.get("histogram"), list)]
    rows = [row for row in rows if row and all(as_number(count) is not None for count in row)]
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    counts = [sum(column) for column in zip(*rows, strict=True)]
    edge, width = 1.25, 2.5 / len(counts)
    figure = empty_figure()
    figure["data"] = [
        {
            "type": "bar",
            "x": [rounded(-edge + (index + 0.5) * width) for index in range(len(counts))],
            "y": [count / sum(counts) if sum(counts) else 0.0 for count in counts],
            "marker": {"color": PURPLE},
            "hovertemplate": "%{y:.2%}",
        }
    ]
    figure["layout"]["bargap"] = 0.02
    figure["layout"]["xaxis"] |= {"title": {"text": "Adam's ratio r", "standoff": 6}, "tickformat": ".1f"}
    figure["layout"]["yaxis"]["tickformat"] = ".0%"
    caption = f"At step {number(run.dynamics[-1]['step'])}; a bell is healthy, two peaks near -1 and 1 precede spikes"
    return Chart(DYNAMICS, "Distribution of Adam's ratio", caption, figure)


def _autocorrelation(run: Run) -> Chart | None:
    lines = []
    for index, lag in enumerate(LAGS):
        values = _series(run, lambda line: _at(line.get("autocorrelation"), lag - 1))  # noqa: B023 - called at once
        if any_value(values):
            lines.append(Line(f"lag {lag}", _steps(run), values, PALETTE[index]))
    if not lines:
        return None
    caption = "Correlation of gradients that many steps apart; near 0 where batches are independent"
    return Chart(DYNAMICS, "Autocorrelation of gradients", caption, line_figure(lines, restarts=run.restarts))


def _noise_scale(run: Run) -> Chart | None:
    values = _series(run, lambda line: as_mapping(line.get("noise")).get("scale"))
    if not any_value(values):
        return None
    log = spans_decade(values)
    figure = line_figure([Line("noise scale", _steps(run), values)], restarts=run.restarts, log=log, from_zero=True)
    caption = "Graphs; larger global batches than this gain little" + ("; log scale" if log else "")
    return Chart(DYNAMICS, "Gradient noise scale", caption, figure)


def _clipped(run: Run) -> Chart | None:
    lines = list(_by_group(run, "clipped_units"))
    if not lines:
        return None
    figure = line_figure(lines, restarts=run.restarts, from_zero=True)
    figure["layout"]["yaxis"]["tickformat"] = ".0%"
    caption = "Share of the units whose gradient optimizer.clip_ratio scaled down, by layer group"
    return Chart(DYNAMICS, "Clipped units", caption, figure, wide=True)


NORMS = {
    "grad_norm": ("Gradient norms", "Of each layer group, before clipping"),
    "update_norm": ("Update norms", "What a step changes, by layer group"),
    "effective_lr": ("Effective learning rates", "Norm of the update over norm of the weights, by layer group"),
}


def _norms(run: Run) -> Iterator[Chart]:
    for key, (title, caption) in NORMS.items():
        lines = list(_by_group(run, key))
        if lines:
            log = spans_decade(value for line in lines for value in line.y)
            figure = line_figure(lines, restarts=run.restarts, log=log)
            figure["layout"]["yaxis"]["exponentformat"] = "power"
            yield Chart(DYNAMICS, title, caption + ("; log scale" if log else ""), figure, wide=True, height=300)


def _at(values: object, index: int) -> object:
    return values[index] if isinstance(values, list) and index < len(values) else None
