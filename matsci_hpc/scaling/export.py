"""Measurements for Extra-P, which fits models of growth to any number of parameters.

Its JSON lines: one object for each point, with the values of all repeats. Source: file-formats.md of Extra-P 4.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.scaling.efficiency import counted_in
from matsci_hpc.scaling.table import SAMPLES_PER_S, WORK_PER_S, Series
from matsci_hpc.whole_files import write_atomic

PARAMETER = "p"
"""Extra-P's usual name for the number of processes."""


def write_extra_p(path: Path, series: tuple[Series, ...]) -> None:
    """Write a `.jsonl` that `extrap --json FILE` reads, in ASCII, whatever the locale.

    Raises:
        UserInputError: the folder may not be written.
        MachineError: the disk is full or failing.
    """
    text = "".join(json.dumps(each) + "\n" for one in series for each in extra_p_points(one))
    write_atomic(path, text.encode())


def extra_p_points(series: Series) -> Iterator[dict[str, object]]:
    """The points of a series: its throughput, and its time, whose growth Extra-P is made for.

    The time is that of the measured work, or of one sample where samples are counted.
    """
    # Extra-P takes "->" apart into a path of calls.
    callpath = series.name.replace("->", "-")
    counted = series.unit != WORK_PER_S
    per_one = "time per sample" if series.unit == SAMPLES_PER_S else f"time per {counted_in(series.unit)}"
    for ranks, rates, times in zip(series.ranks.tolist(), series.rates, series.times_s, strict=True):
        point = {"params": {PARAMETER: ranks}, "callpath": callpath}
        if counted or times is None:
            yield {**point, "metric": "throughput", "value": rates.tolist()}
            yield {**point, "metric": per_one, "value": (1 / rates).tolist()}
        else:
            yield {**point, "metric": "time", "value": times.tolist()}
