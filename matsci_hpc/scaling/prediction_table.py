"""A forecast as a table for people, and as plain values."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from matsci_hpc.preflight.words import bytes_in_words, counted, time_in_words
from matsci_hpc.scaling.forecast_run import Forecast, Question
from matsci_hpc.scaling.prediction import IN_WORDS, Prediction

COLUMNS = (
    ("ranks", 8),
    ("nodes", 8),
    ("graphs", 10),
    ("step", 10),
    ("epoch", 10),
    ("node-hours", 12),
    ("efficiency", 12),
)


def render(forecast: Forecast, question: Question) -> str:
    """The forecast as text."""
    return "\n".join(line.rstrip() for line in _lines(forecast, question))


def _lines(forecast: Forecast, question: Question) -> Iterator[str]:
    scaling = "weak scaling: the batch grows with the ranks" if question.weak else "strong scaling: one global batch"
    yield f"{question.config}: {scaling}, {counted(forecast.ranks_per_node, 'rank')} a node"
    yield ""
    yield f"{''.join(f'{name:>{width}}' for name, width in COLUMNS)}  limited by"
    for each in forecast.predictions:
        yield _row(each)
    yield ""
    yield from basis_lines(forecast)
    yield ""
    yield from remark_lines(forecast.remarks)


def basis_lines(forecast: Forecast) -> Iterator[str]:
    """What the forecast counts with, in words."""
    cost, links = forecast.cost, forecast.links
    line = cost.line
    fixed = step_time(line.fixed_s + cost.optimizer_s)
    yield f"  step     {fixed} whatever the share, and {1 / line.per_cost_s:,.3g} (edges + 30 atoms) a second"
    yield f"           from {cost.source}"
    sent = sum(each.size_bytes for each in cost.buckets)
    yield f"  sent     {bytes_in_words(sent)} of gradients in {counted(len(cost.buckets), 'bucket')}"
    yield f"  network  {links.source}"
    for where, link in (("within a node", links.within), ("between nodes", links.between)):
        if link is not None:
            rate = bytes_in_words(link.bandwidth_bytes_per_s)
            yield f"           {where} {step_time(link.latency_s)} a message, {rate}/s"
    noise = f"{cost.noise:.1%} between ranks" if cost.noise else "none counted"
    yield f"  noise    {noise}"


def remark_lines(remarks: Iterable[str]) -> Iterator[str]:
    """What to mind."""
    for number, text in enumerate(remarks):
        yield f"  {'mind' if number == 0 else '':<8} {text}"


def _row(each: Prediction) -> str:
    cells = (
        f"{each.ranks:,}",
        f"{each.nodes:,}",
        f"{each.graphs:,.0f}",
        step_time(each.step_s),
        time_in_words(each.epoch_s),
        f"{each.node_hours:,.3g}",
        f"{each.efficiency:.1%}",
    )
    numbers = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True))
    return f"{numbers}  {limit_in_words(each)}"


def limit_in_words(each: Prediction) -> str:
    """`compute`, or what else takes how much of a step."""
    if each.limit == "compute":
        return f"compute: {IN_WORDS['compute']} is {each.parts.compute / each.step_s:.0%} of a step"
    share = getattr(each.parts, each.limit) / each.step_s
    return f"{each.limit}: {IN_WORDS[each.limit]}, {share:.0%} of a step"


def step_time(time_s: float) -> str:
    """A short time in words."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if time_s >= size:
            return f"{time_s / size:.3g} {unit}"
    return f"{time_s / 1e-6:.3g} us"


def to_json(forecast: Forecast, question: Question) -> dict[str, Any]:
    """All of it as plain values."""
    return {
        "config": str(question.config),
        "scaling": "weak" if question.weak else "strong",
        "ranks_per_node": forecast.ranks_per_node,
        "epochs": forecast.epochs,
        "cost": asdict(forecast.cost),
        "links": asdict(forecast.links),
        "predictions": [asdict(each) for each in forecast.predictions],
        "remarks": forecast.remarks,
    }
