"""`matsci-hpc watch`: a run on the terminal while it goes on, here or elsewhere."""

import sys
import time
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from matsci_hpc.analysis import words
from matsci_hpc.analysis.records import Record, as_mapping, as_number
from matsci_hpc.analysis.run_tail import Newest, RunTail
from matsci_hpc.analysis.stragglers import REASONS, stragglers_of

RECENT = 50
"""Lines that rates and times are taken from."""
SPARKS = {True: "▁▂▃▄▅▆▇█", False: "_.:-=+*#"}
"""Levels of a curve in one line, on terminals that can show them and on others."""
PARTS = {
    "data_time_s": ("data", "red"),
    "forward_time_s": ("forward", "cyan"),
    "backward_time_s": ("backward", "blue"),
    "compute_time_s": ("compute", "blue"),
    "comm_time_s": ("communication", "yellow"),
    "optimizer_time_s": ("optimiser", "green"),
    "other_time_s": ("other", "white"),
}
STATE_COLORS = {"complete": "green", "stopped": "yellow", "asked to stop": "yellow", "running": "green"}


def watch(folder: Path, *, once: bool, every_s: float) -> None:
    """Show a run until it is complete or Ctrl-C comes.

    Args:
        folder: run directory.
        once: show it once, as it is. A screen that is no terminal gets no more either.
        every_s: seconds between looks.

    Raises:
        UserInputError: the folder is no run.
    """
    tail = RunTail(folder)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names may hold what the terminal has no sign for
    console = Console(highlight=False)
    newest = tail.look()
    if once or not console.is_terminal:
        console.print(view(newest, fancy=_fancy(console)))
        return
    try:
        with Live(view(newest, fancy=_fancy(console)), console=console, auto_refresh=False) as live:
            while newest.state != "complete":
                time.sleep(every_s)
                newest = tail.look()
                live.update(view(newest, fancy=_fancy(console)), refresh=True)
    except KeyboardInterrupt:  # the view ends, the run does not
        return


def view(newest: Newest, *, fancy: bool = True) -> Group:
    """All that is shown.

    Args:
        newest: of the run.
        fancy: whether the screen can show more than ASCII.
    """
    last: Record = newest.steps[-1] if newest.steps else {}
    head = Text.assemble((_plain(newest.name), "bold"), "  ", (newest.state, STATE_COLORS[newest.state]))
    if newest.reason:
        head.append(f" ({_plain(newest.reason)})")
    if newest.age_s is not None:
        head.append(f"  last line {_words(words.duration(round(newest.age_s)))} ago", "dim")
    if not last:
        return Group(head, Text("no step on record yet"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name, content in (
        ("progress", _progress(newest, last)),
        ("rate", _rate(last)),
        ("loss", _loss(newest.steps, fancy=fancy)),
        ("time", _time_split(newest.steps)),
        ("balance", _balance(last)),
        ("memory", _memory(newest.steps)),
        ("stragglers", _stragglers(last)),
        ("held out", _held_out(newest)),
    ):
        if content is not None:
            table.add_row(name, content)
    return Group(head, table)


def time_left_s(newest: Newest) -> float | None:
    """Time that the remaining steps take if they go on as the last ones, evaluations and checkpoints included."""
    recent = newest.steps[-RECENT:]
    pairs = [(a, b) for a, b in pairwise(recent) if a.get("life") == b.get("life") == recent[-1].get("life")]
    steps = sum(b["step"] - a["step"] for a, b in pairs)
    times = [(as_number(a.get("time_s")), as_number(b.get("time_s"))) for a, b in pairs]
    total_s = sum(end - begin for begin, end in times if begin is not None and end is not None)
    if newest.planned is None or not steps or total_s <= 0:
        return None
    left = max(0, newest.planned - int(newest.steps[-1]["step"]))
    return float(left * total_s / steps)


def sparkline(values: list[float], *, fancy: bool, width: int = 40) -> str:
    """A curve in one line: the mean of each of `width` parts, between the smallest and the largest."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    means = [fmean(values[first : first + size]) for first in range(0, len(values), size)]
    low, span = min(means), max(means) - min(means)
    levels = SPARKS[fancy]
    return "".join(levels[round((mean - low) / span * (len(levels) - 1)) if span else 0] for mean in means)


def _progress(newest: Newest, last: Record) -> Any:
    step, planned = int(last["step"]), newest.planned
    text = f"step {step:,}" + (f" of {planned:,}" if planned else "")
    epoch = as_number(last.get("epoch"))
    text += f", epoch {epoch:,.0f}" if epoch is not None else ""
    left_s = time_left_s(newest) if newest.state == "running" else None
    text += f", about {_words(words.duration(float(f'{left_s:.2g}')))} left" if left_s else ""
    if not planned:
        return Text(text)
    row = Table.grid(padding=(0, 2))
    row.add_row(ProgressBar(total=planned, completed=step, width=30), f"{step / planned:.1%}", text)
    return row


def _rate(last: Record) -> Text:
    known = [(as_number(last.get(f"{what}_per_s")), what) for what in ("graphs", "atoms", "edges")]
    rates = [f"{value:,.3g} {what}/s" if value < 1000 else f"{value:,.0f} {what}/s" for value, what in known if value]
    step_s, ranks = as_number(last.get("step_time_s")), as_number(last.get("ranks"))
    rates += [f"{_words(words.duration(step_s))} a step"] if step_s else []
    rates += [f"{ranks:,.0f} rank{'s' if ranks > 1 else ''}"] if ranks else []
    return Text("  ".join(rates))


def _loss(steps: list[Record], *, fancy: bool) -> Text:
    values = [value for line in steps if (value := as_number(line.get("loss"))) is not None]
    last = steps[-1]
    text = Text(f"{values[-1]:.4g}" if as_number(last.get("loss")) is not None else "not finite")
    if len(values) > 1:
        text.append(f"  mean of {len(values[-10:])}: {fmean(values[-10:]):.4g}  ")
        text.append(sparkline(values, fancy=fancy), "cyan")
    for key, name in (("lr", "learning rate"), ("grad_norm", "gradient norm")):
        if (value := as_number(last.get(key))) is not None:
            text.append(f"  {name} {value:.3g}")
    return text


def _time_split(steps: list[Record]) -> Any:
    recent = steps[-RECENT:]
    split = any(as_number(line.get("forward_time_s")) is not None for line in recent)
    means = {}
    for key, (name, color) in PARTS.items():
        values = [value for line in recent if (value := as_number(line.get(key))) is not None]
        if values and not (split and key == "compute_time_s"):
            means[name] = fmean(values), color
    total_s = sum(time_s for time_s, _ in means.values())
    if total_s <= 0:
        return None
    text = Text()
    for name, (time_s, color) in means.items():
        text.append(f"{name} {time_s / total_s:.0%}", color)
        text.append("  ")
    text.append(f"mean of {len(recent)} lines", "dim")
    return text


def _balance(last: Record) -> Text | None:
    slowest, average = as_number(last.get("step_time_s")), as_number(last.get("step_time_mean_s"))
    cost = as_number(last.get("cost_imbalance"))
    parts = [f"step time {slowest / average:.2f}"] if slowest and average else []
    parts += [f"predicted cost {cost:.2f}"] if cost is not None else []
    return Text(f"{', '.join(parts)} (largest over mean of the ranks)") if parts else None


def _memory(steps: list[Record]) -> Text | None:
    last = steps[-1]
    memory, device = as_number(last.get("memory_bytes")), as_number(last.get("device_memory_bytes"))
    parts = [f"{_words(words.size(memory))} in the largest rank"] if memory else []
    parts += [f"{_words(words.size(device))} on the largest GPU"] if device else []
    before: Record = steps[-2] if len(steps) > 1 and steps[-2].get("life") == last.get("life") else {}
    time_s = (as_number(last.get("time_s")) or 0.0) - (as_number(before.get("time_s")) or 0.0)
    for key, name in (("cpu_energy_j", "processors"), ("gpu_energy_j", "GPUs")):
        if (energy_j := as_number(last.get(key))) is not None and before and time_s > 0:
            parts.append(f"{energy_j / time_s:,.0f} W by {name}")
    return Text("  ".join(parts)) if parts else None


def _stragglers(last: Record) -> Text | None:
    found = stragglers_of(last)
    if not found:
        return None
    lines = [
        f"rank {each['rank']} on {_plain(each['host'])}: busy {each['ratio']:.2f} times as long as the median rank, "
        f"{REASONS[each['reason']]}, {each['intervals']} line{'s' if each['intervals'] > 1 else ''} in a row"
        for each in found[:3]
    ]
    count = as_number(last.get("straggler_count")) or len(found)
    lines += [f"and {count - 3:,.0f} more"] if count > 3 else []
    return Text("\n".join(lines), "yellow")


def _held_out(newest: Newest) -> Text | None:
    if not newest.evaluations:
        return None
    last = newest.evaluations[-1]
    found = []
    for name, metrics in as_mapping(last.get("metrics")).items():
        known = as_mapping(metrics)
        for key in ("mae", "accuracy", "f1", "loss"):
            if (value := as_number(known.get(key))) is not None:
                unit = f" {_plain(str(known['unit']))}" if key == "mae" and known.get("unit") else ""
                found.append(f"{_plain(name)}: {words.MEASURES[key]} {value:.4g}{unit}")
                break
    loss = as_number(last.get("loss"))
    found += [f"loss {loss:.4g}"] if loss is not None else []
    return Text(f"{', '.join(found)} at step {last['step']:,}")


def _fancy(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _words(text: str) -> str:
    """Without the narrow spaces of the report, which some terminals show as boxes."""
    return text.replace(words.GAP, " ").replace("µ", "u")


def _plain(text: str) -> str:
    """Text of a run without what a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
