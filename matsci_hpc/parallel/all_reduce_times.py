"""How long all-reduces take, by size, and the two numbers that sum it up."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.measurements import Point

NUMBER_BYTES = 4
SIZES = (NUMBER_BYTES, *(1024 * 4**power for power in range(9)))
"""Bytes of float32 tensors: a single number, then 1 KiB to 64 MiB."""
FEWEST, MOST = 3, 1000
"""Repeats of one size."""
SIZES_AT_LEAST = 4
_ROUNDS = 50
_SMALLEST_ERROR = 1e-3


def time_all_reduces(comm: Communicator, control: Communicator, budget_s: float) -> list[Point]:
    """Sum tensors of growing size; collective. Larger ones are left out when time is up.

    Args:
        comm: what is measured.
        control: the same ranks by a backend that is known to work, for what the ranks have to agree on.
        budget_s: time for it all, about.

    Raises:
        MachineError: the sums are wrong.
        RankError: a rank is lost.
    """
    began_s = time.perf_counter()
    points: list[Point] = []
    for count, size in enumerate(SIZES):
        left_s = budget_s - _slowest(control, [time.perf_counter() - began_s])[0]
        growth = size / SIZES[count - 1]
        if count >= SIZES_AT_LEAST and points[-1].time_s * growth * (FEWEST + 1) > left_s:
            break
        points.append(_time_size(comm, control, size, left_s / (len(SIZES) - count)))
    return points


def _time_size(comm: Communicator, control: Communicator, size: int, budget_s: float) -> Point:
    """One size: a check and a warm-up, then repeats, twice as many as before while that fits."""
    tensor = torch.full((size // NUMBER_BYTES,), float(comm.rank + 1))
    comm.all_reduce(tensor)
    expected = comm.size * (comm.size + 1) / 2
    wrong = float(not bool((tensor == expected).all()))
    if _slowest(control, [wrong])[0]:
        raise MachineError(f"{comm.name} gives wrong sums of tensors of {size} bytes")
    tensor.zero_()  # repeated sums of anything else would grow without limit
    _once(comm, tensor)
    began_s = time.perf_counter()
    times_s: list[float] = []
    more = FEWEST
    while more:
        for _ in range(more):
            times_s.append(_once(comm, tensor))
            control.activity.tick()
        spent_s = _slowest(control, [time.perf_counter() - began_s])[0]
        more = len(times_s) if 2 * spent_s < budget_s and 2 * len(times_s) <= MOST else 0
    low_s, time_s, high_s = np.quantile(_slowest(control, times_s), [0.25, 0.5, 0.75])
    return Point(bytes=size, time_s=time_s, low_s=low_s, high_s=high_s, repeats=len(times_s))


def _once(comm: Communicator, tensor: torch.Tensor) -> float:
    comm.barrier()
    began_s = time.perf_counter()
    comm.all_reduce(tensor)
    return time.perf_counter() - began_s


def _slowest(control: Communicator, values: Sequence[float]) -> list[float]:
    """The largest of all ranks, of each value."""
    tensor = torch.tensor(values, dtype=torch.float64)
    control.all_reduce(tensor, "max")
    return [float(each) for each in tensor]


def fit_line(points: Sequence[Point]) -> tuple[float, float]:
    """Latency in s and bandwidth in bytes/s of time = latency + bytes / bandwidth.

    The sum of relative errors, without squares, is least: by least squares whose weights are the inverse errors of the
    round before. So microseconds count as much as seconds, and one size that was disturbed counts little.

    Args:
        points: at least two sizes.
    """
    sizes = np.array([each.bytes for each in points], dtype=np.float64) / 1e6
    times = np.array([each.time_s for each in points]) * 1e3
    terms = np.stack([np.ones_like(sizes), sizes], axis=1) / times[:, None]
    weights = np.ones_like(times)
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        (latency, slope), *_ = np.linalg.lstsq(terms * root[:, None], root)
        weights = 1 / np.maximum(np.abs(terms @ [latency, slope] - 1), _SMALLEST_ERROR)
    if latency < 0 or slope <= 0:  # hardly a line: the two ends are what is left to go by
        latency, slope = times[0], max(times[-1] - times[0], 1e-6) / sizes[-1]
    return float(latency) / 1e3, 1e9 / float(slope)
