"""Figures of the speed of a run: where its time, energy and memory go, and which ranks keep the others waiting."""

from itertools import pairwise
from statistics import median

from matsci_hpc.analysis.chart import SPEED, Chart
from matsci_hpc.analysis.plotting import (
    AXIS,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Line,
    any_value,
    empty_figure,
    line_figure,
    span_steps,
    thinned,
    with_smooth,
)
from matsci_hpc.analysis.records import Record, Run, as_number
from matsci_hpc.analysis.words import number

_PARTS = {
    "forward_time_s": ("forward", SKY),
    "backward_time_s": ("backward", BLUE),
    "compute_time_s": ("compute", BLUE),
    "comm_time_s": ("communication", ORANGE),
    "data_time_s": ("waiting for data", VERMILION),
    "optimizer_time_s": ("optimiser", GREEN),
    "other_time_s": ("other", GREY),
}
_MOST_CELLS = 60_000
"""Of the map of ranks; more cannot be seen."""


def time_parts(run: Run) -> dict[str, tuple[str, str]]:
    """Where a step's time goes: label and colour of each key. Runs of earlier versions tell compute as a whole."""
    split = any_value(run.series("forward_time_s"))
    left_out = {"compute_time_s"} if split else {"forward_time_s", "backward_time_s"}
    return {key: part for key, part in _PARTS.items() if key not in left_out}


def speed_charts(run: Run, steps: list[int]) -> list[Chart | None]:
    """Those that the records can fill, in reading order; None in place of the others."""
    return [
        _time_parts(run, steps),
        _throughput(run, steps, "graphs"),
        _throughput(run, steps, "edges"),
        _imbalance(run, steps),
        _memory(run, steps),
        _power(run),
        _ranks(run),
    ]


def _time_parts(run: Run, steps: list[int]) -> Chart | None:
    figure = empty_figure(restarts=run.restarts, legend=True)
    total_ms = [0.0] * len(steps)
    for key, (name, color) in time_parts(run).items():
        values_ms = [None if value is None else 1e3 * value for value in run.series(key)]
        if not any_value(values_ms):
            continue
        total_ms = [before + (value or 0.0) for before, value in zip(total_ms, values_ms, strict=True)]
        x, y = thinned(steps, values_ms)
        trace: Record = {"name": name, "x": x, "y": y, "hovertemplate": "%{y:.3g} ms"}
        if len(x) < 3:
            trace |= {"type": "bar", "marker": {"color": color}}
        else:
            trace |= {"type": "scatter", "mode": "lines", "stackgroup": "parts", "fillcolor": color}
            trace |= {"line": {"width": 0.5, "color": color}}
        figure["data"].append(trace)
    if not figure["data"]:
        return None
    figure["layout"]["barmode"] = "stack"
    if len(steps) >= 3:
        span_steps(figure, steps[-1])
    caption = "Milliseconds of a step, mean over ranks"
    # The first steps of a life (allocation, kernel choice) can be a hundred times slower than the rest.
    if len(total_ms) >= 10 and max(total_ms) > 4 * median(total_ms) > 0:
        top = 1.5 * sorted(total_ms)[int(0.95 * (len(total_ms) - 1))]
        if top < max(total_ms):
            figure["layout"]["yaxis"]["range"] = [0, top]
            caption += f"; the axis is cut, the slowest step took {number(max(total_ms), 3)} ms"
    return Chart(SPEED, "Where a step's time goes", caption, figure, wide=True, height=320)


def _throughput(run: Run, steps: list[int], what: str) -> Chart | None:
    values = run.series(f"{what}_per_s")
    if not any_value(values):
        return None
    figure = line_figure(with_smooth(what, steps, values), restarts=run.restarts, from_zero=True)
    return Chart(SPEED, f"{what.capitalize()} per second", "All ranks together, by the clock on the wall", figure)


def _imbalance(run: Run, steps: list[int]) -> Chart | None:
    ratio = [
        slowest / average if slowest is not None and average else None
        for slowest, average in zip(run.series("step_time_s"), run.series("step_time_mean_s"), strict=True)
    ]
    found = [
        Line("step time", steps, ratio, VERMILION),
        Line("predicted cost", steps, run.series("cost_imbalance"), BLUE),
    ]
    lines = [line for line in found if any_value(line.y)]
    if not lines:
        return None
    caption = "Largest over mean of the ranks; 1 is perfect balance"
    figure = line_figure(lines, restarts=run.restarts)
    figure["layout"]["yaxis"]["autorangeoptions"] = {"include": 1}
    return Chart(SPEED, "Load imbalance", caption, figure)


def _memory(run: Run, steps: list[int]) -> Chart | None:
    values_gb = [None if value is None else value / 1e9 for value in run.series("memory_bytes")]
    if not any_value(values_gb):
        return None
    figure = line_figure([Line("memory", steps, values_gb, PURPLE)], restarts=run.restarts, from_zero=True)
    return Chart(SPEED, "Memory", "GB in the largest rank, without mapped shards, which ranks share", figure)


def _power(run: Run) -> Chart | None:
    """Energy between two lines of a life over the time between them, evaluations and checkpoints included."""
    lines = []
    for key, name, color in (("cpu_energy_j", "processors", BLUE), ("gpu_energy_j", "GPUs", GREEN)):
        x, y = [], []
        for before, line in pairwise(run.steps):
            energy_j, begin_s, end_s = as_number(line.get(key)), as_number(before.get("time_s")), line.get("time_s")
            time_s = (as_number(end_s) or 0.0) - (begin_s or 0.0)
            if energy_j is not None and time_s > 0 and before.get("life") == line.get("life"):
                x.append(int(line["step"]))
                y.append(energy_j / time_s)
        if y:
            lines += with_smooth(name, x, y) if color == BLUE else [Line(name, x, y, color)]
    if not lines:
        return None
    figure = line_figure(lines, restarts=run.restarts, from_zero=True)
    return Chart(SPEED, "Power", "Watts of all nodes together, as far as their counters can be read", figure)


def busy_times(line: Record) -> list[float]:
    """Seconds per step that each rank was busy, without communication, by a line of ranks.jsonl."""
    keys = ("data_time_s", "forward_time_s", "backward_time_s", "optimizer_time_s")
    return [sum(times) for times in zip(*(line[key] for key in keys), strict=True)]


def _ranks(run: Run) -> Chart | None:
    """Busy time over the median, rank by rank, over the run, for the number of ranks that it ended on."""
    rows = [(int(line["step"]), busy_times(line)) for line in run.ranks]
    rows = [row for row in rows if len(row[1]) == len(rows[-1][1])]
    if not rows or len(rows[0][1]) < 2:
        return None
    ranks = len(rows[0][1])
    rows = rows[:: max(1, -(-len(rows) * ranks // _MOST_CELLS))]
    ratios = [[round(time_s / (median(busy) or 1.0), 3) for time_s in busy] for _, busy in rows]
    figure = empty_figure()
    figure["data"] = [
        {
            "type": "heatmap",
            "x": [step for step, _ in rows],
            "y": list(range(ranks)),
            "z": [list(column) for column in zip(*ratios, strict=True)],
            "zmin": 0.8,
            "zmax": 1.5,
            "colorscale": [[0.0, SKY], [2 / 7, "#F4F5F6"], [1.0, VERMILION]],
            "colorbar": {"thickness": 12, "outlinewidth": 0},
            "name": "",  # what the hover box would otherwise add
            "hovertemplate": "step %{x}, rank %{y}: %{z}",
        }
    ]
    figure["layout"] |= {"hovermode": "closest", "yaxis": {**AXIS, "title": {"text": "rank"}, "showgrid": False}}
    caption = "Busy time of each rank over that of the median rank; red ones keep the others waiting"
    return Chart(SPEED, "Ranks", caption, figure, wide=True, height=min(600, 160 + 12 * ranks))
