"""What the steps between two lines of metrics.jsonl were like on every rank, and in short."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.telemetry.clock import PHASES, StepClock
from matsci_hpc.telemetry.recorder import private_bytes

COLUMNS = (
    *PHASES,
    *("total", "in_flight", "graphs", "atoms", "edges"),
    *("cpu_energy_j", "gpu_energy_j", "memory_bytes", "device_memory_bytes"),
)
"""Of the table of an interval: seconds, counts, joules and bytes of a rank, of all its steps together."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rank tells besides its clock.

    Attributes:
        device_bytes: most memory of a GPU that it has held at once; 0 without one.
        cpu_j, gpu_j: energy since the last reading, in joules; NaN where it cannot be read or another rank reads it.
    """

    device_bytes: int = 0
    cpu_j: float = math.nan
    gpu_j: float = math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """The steps since the last line on all ranks.

    Attributes:
        steps: number of steps.
        graphs, atoms, edges: of all ranks together.
        cost_imbalance: mean over the steps of largest over mean predicted cost of the ranks.
        table: float64 [ranks, len(COLUMNS)].
    """

    steps: int
    graphs: int
    atoms: int
    edges: int
    cost_imbalance: float
    table: Values

    def of(self, column: str) -> Values:
        """A column of the table, float64 [ranks]."""
        return self.table[:, COLUMNS.index(column)]

    def cost(self, atom_cost: float, speeds: Sequence[float] | None) -> Values:
        """Predicted time of each rank's work, in units of an edge on a rank of speed 1; float64 [ranks].

        Args:
            atom_cost: of an atom against an edge.
            speeds: of the ranks, or None where all are alike.
        """
        cost = self.of("edges") + atom_cost * self.of("atoms")
        return cost if speeds is None else cost / np.asarray(speeds, dtype=np.float64)


def gather_interval(clock: StepClock, comm: Communicator, reading: Reading | None = None) -> Interval:
    """Bring the clocks of all ranks together, collective; on every rank.

    Args:
        clock: of this rank.
        comm: the ranks.
        reading: of this rank.
    """
    reading = reading or Reading()
    mine = [
        *(clock.phase_s[phase] for phase in PHASES),
        *(clock.total_s, clock.in_flight_s, clock.rank_graphs, clock.rank_atoms, clock.rank_edges),
        *(reading.cpu_j, reading.gpu_j, private_bytes(), reading.device_bytes),
    ]
    table = comm.all_gather(torch.tensor(mine, dtype=torch.float64)).numpy()
    imbalance = clock.cost_imbalance / max(clock.steps, 1)
    return Interval(clock.steps, clock.graphs, clock.atoms, clock.edges, imbalance, table)


def summary(interval: Interval) -> dict[str, float]:
    """The interval in short, as it stands in metrics.jsonl.

    Returns:
        step_time_s (largest), step_time_mean_s, step_time_min_s, and the mean over ranks of data, forward, backward,
        compute (forward and backward), comm, optimizer and other time, in seconds per step; comm_in_flight_s, the mean,
        too; compute_time_max_s; cost_imbalance, mean over the steps; graphs, atoms and edges per second; memory_bytes,
        private (largest); with GPUs device_memory_bytes (largest); where energy is read, cpu_energy_j and gpu_energy_j,
        sums, and the number of readers, energy_nodes and energy_gpus.
    """
    steps = max(interval.steps, 1)
    total = interval.of("total") / steps
    phases = {phase: interval.of(phase) / steps for phase in PHASES}
    compute = phases["forward"] + phases["backward"]
    interval_s = float(total.max()) * steps
    found = {
        "step_time_s": float(total.max()),
        "step_time_mean_s": float(total.mean()),
        "step_time_min_s": float(total.min()),
        **{f"{phase}_time_s": float(values.mean()) for phase, values in phases.items()},
        "comm_in_flight_s": float(interval.of("in_flight").mean()) / steps,
        "compute_time_s": float(compute.mean()),
        "compute_time_max_s": float(compute.max()),
        "other_time_s": float((total - sum(phases.values())).mean()),
        "cost_imbalance": interval.cost_imbalance,
        "graphs_per_s": interval.graphs / interval_s,
        "atoms_per_s": interval.atoms / interval_s,
        "edges_per_s": interval.edges / interval_s,
        "memory_bytes": int(interval.of("memory_bytes").max()),
    }
    if (device := interval.of("device_memory_bytes")).any():
        found["device_memory_bytes"] = int(device.max())
    for column, readers in (("cpu_energy_j", "energy_nodes"), ("gpu_energy_j", "energy_gpus")):
        read = np.isfinite(interval.of(column))
        if read.any():
            found |= {column: float(interval.of(column)[read].sum()), readers: int(read.sum())}
    return found
