"""Where the time of a step went on every rank, and the lines of metrics.jsonl."""

import json
import math
import os
import resource
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch

from matsci_hpc.loading.loader import StepWork
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.whole_files import output_error

PHASES = ("data", "compute", "comm", "optimizer")
MAX_WAITING = 10_000
"""Lines of one file kept in memory while the disk takes none."""


class StepClock:
    """Adds up time and work of the steps since the last line.

    `start` begins a step, `lap(phase)` gives the time since the last call to the phase, `stop` ends the step.

    Attributes:
        steps: number of steps.
        phase_s, total_s: their time on this rank, by phase and in all.
        graphs, atoms, edges: what all ranks together worked on.
        cost_imbalance: sum over the steps of largest over mean predicted cost of the ranks.
        in_flight_s: time during which gradients were on their way; what of it computing did not hide is phase comm.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new interval between lines."""
        self.steps = 0
        self.phase_s = dict.fromkeys(PHASES, 0.0)
        self.total_s = 0.0
        self.graphs = self.atoms = self.edges = 0
        self.cost_imbalance = 0.0
        self.in_flight_s = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._start_s = self._last_s = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Give the time since the last call to a phase."""
        now_s = time.perf_counter()
        self.phase_s[phase] += now_s - self._last_s
        self._last_s = now_s

    def stop(self, work: StepWork) -> None:
        """End a step that did this work."""
        self.total_s += time.perf_counter() - self._start_s
        self.steps += 1
        self.graphs += work.graphs
        self.atoms += work.atoms
        self.edges += work.edges
        self.cost_imbalance += work.cost_imbalance


def gather_interval(clock: StepClock, comm: Communicator, device_bytes: int = 0) -> dict[str, float]:
    """What the interval since the last line was like over all ranks; collective.

    Args:
        clock: of this rank.
        comm: the ranks.
        device_bytes: most memory of a GPU that this rank has held at once; 0 without one.

    Returns:
        step_time_s (largest), step_time_mean_s, step_time_min_s, and the mean over ranks of data, compute, comm,
        optimizer and other time, in seconds per step; comm_in_flight_s, the mean, too; compute_time_max_s;
        cost_imbalance, mean over the steps; graphs, atoms and edges per second; memory_bytes, private (largest);
        with GPUs device_memory_bytes (largest).
    """
    mine = [
        *(clock.phase_s[phase] for phase in PHASES),
        clock.total_s,
        clock.in_flight_s,
        float(private_bytes()),
        float(device_bytes),
    ]
    table = comm.all_gather(torch.tensor(mine, dtype=torch.float64))
    steps = max(clock.steps, 1)
    phases = table[:, : len(PHASES)] / steps
    total = table[:, len(PHASES)] / steps
    interval_s = float(total.max()) * steps
    times = {f"{phase}_time_s": float(phases[:, i].mean()) for i, phase in enumerate(PHASES)}
    return {
        "step_time_s": float(total.max()),
        "step_time_mean_s": float(total.mean()),
        "step_time_min_s": float(total.min()),
        **times,
        "comm_in_flight_s": float(table[:, len(PHASES) + 1].mean()) / steps,
        "compute_time_max_s": float(phases[:, PHASES.index("compute")].max()),
        "other_time_s": float((total - phases.sum(dim=1)).mean()),
        "cost_imbalance": clock.cost_imbalance / steps,
        "graphs_per_s": clock.graphs / interval_s,
        "atoms_per_s": clock.atoms / interval_s,
        "edges_per_s": clock.edges / interval_s,
        "memory_bytes": int(table[:, -2].max()),
        **({"device_memory_bytes": int(table[:, -1].max())} if table[:, -1].any() else {}),
    }


def private_bytes() -> int:
    """Memory of this process alone: its resident set without the pages of mapped shards, which the node shares.

    Read from /proc; where there is none, the largest resident set so far.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class JsonLines:
    """An append-only file of one JSON object per line; a line is whole, or torn and last.

    Lines that the disk does not take are kept, the newest `MAX_WAITING` of them, and written before the next one that
    it takes: a full disk must not end a run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._warned = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._mend()
        except OSError as error:
            raise output_error(path, error) from None

    def append(self, record: dict[str, Any]) -> None:
        """Add a line. Numbers that JSON does not know (NaN, infinity) become null."""
        self._waiting.append((json.dumps(_finite(record), allow_nan=False) + "\n").encode())
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self.flush()

    def flush(self) -> bool:
        """Try to write what waits; whether nothing waits any more. The first failure after a success is a warning."""
        try:
            if self._waiting:
                self._write(b"".join(self._waiting))
        except OSError as error:
            if not self._warned:
                self._warned = True
                what = str(output_error(self._path, error)).partition(";")[0]
                _warn(f"{what}; training goes on, up to {MAX_WAITING:,} lines are kept in memory and written later")
            return False
        self._waiting.clear()
        self._warned = False
        return True

    def close(self) -> None:
        """Write what waits, or say how much is lost."""
        lost = self._lost + (0 if self.flush() else len(self._waiting))
        if lost:
            _warn(f"{self._path}: {lost:,} lines are lost, the disk did not take them")

    def _write(self, lines: bytes) -> None:
        """Add the lines, or nothing."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                while lines:  # the disk may take a part before it is full
                    lines = lines[os.write(descriptor, lines) :]
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _mend(self) -> None:
        """End a last line that a crash tore, so that the next one starts on its own."""
        if self._path.exists():
            data = self._path.read_bytes()
            if data and not data.endswith(b"\n"):
                with self._path.open("ab") as file:
                    file.write(b"\n")


def _warn(text: str) -> None:
    print(f"matsci-hpc: warning: {text}", file=sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
