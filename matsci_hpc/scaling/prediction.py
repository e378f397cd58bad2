"""Step time, epoch time, node-hours and efficiency of a run on any number of ranks, and what limits it.

    step = max(computing + exposed communication + optimiser, input)
    computing = mean over the steps of E[max over ranks of (fixed + per_cost * load of the rank) (1 + noise)]

Loads are those of the run's own plan. Exposed is what of the all-reduces backward does not hide (`exposure.py`).
Efficiency is the time of an epoch times the ranks, for the smallest number of ranks over that for these, so it holds
whether the global batch grows with the ranks or not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from matsci_hpc.scaling.communication import Algorithm, Network
from matsci_hpc.scaling.exposure import Exposed, exposed_time
from matsci_hpc.scaling.loads import Loads
from matsci_hpc.scaling.noise import expected_largest
from matsci_hpc.scaling.step_cost import StepCost

Limit = Literal["compute", "fixed", "imbalance", "noise", "latency", "bandwidth", "input"]
UNNOTICED = 0.1
"""Share of a step up to which what is not computing limits nothing."""
IN_WORDS: dict[Limit, str] = {
    "compute": "computing",
    "fixed": "starting kernels and the optimiser, whatever the share",
    "imbalance": "waiting for the rank with the largest share",
    "noise": "waiting for the rank that happens to be slow",
    "latency": "number of messages between the ranks",
    "bandwidth": "size of the gradients on the network",
    "input": "planning, reading and collating the samples",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the time of a step goes, in seconds, mean over the steps.

    Attributes:
        compute: of the mean share.
        fixed: whatever the share, with the optimiser.
        imbalance: of the largest share beyond the mean one.
        noise: by which the slowest rank is later than that.
        latency, bandwidth: of the exposed communication.
        input: by which the input is later than all of these together.
    """

    compute: float
    fixed: float
    imbalance: float
    noise: float
    latency: float
    bandwidth: float
    input: float

    @property
    def total(self) -> float:
        """Time of a step."""
        return self.compute + self.fixed + self.imbalance + self.noise + self.latency + self.bandwidth + self.input

    @property
    def limit(self) -> Limit:
        """The largest part besides computing, unless all of those together hardly matter."""
        others: dict[Limit, float] = {
            "fixed": self.fixed,
            "imbalance": self.imbalance,
            "noise": self.noise,
            "latency": self.latency,
            "bandwidth": self.bandwidth,
            "input": self.input,
        }
        if sum(others.values()) <= UNNOTICED * self.total:
            return "compute"
        return max(others, key=lambda name: others[name])


@dataclass(frozen=True, slots=True)
class Storage:
    """A file system that all ranks read from together.

    Attributes:
        bytes_per_s: that it gives them together; None if it is not to limit anything.
        bytes_per_sample: on disk, mean.
    """

    bytes_per_s: float | None = None
    bytes_per_sample: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """A run on so many ranks.

    Attributes:
        ranks, nodes: of the run.
        graphs: of a step, mean.
        steps: of an epoch.
        imbalance: largest over mean predicted cost of a rank.
        idle: share of (rank, step) pairs without work.
        parts: of the step time.
        step_s, epoch_s: without evaluations and checkpoints.
        node_hours: of an epoch.
        graphs_per_s: of all ranks.
        efficiency: against the smallest number of ranks.
        limit: what limits it.
        extrapolated: whether the shares are outside of those that were measured, by more than a tenth.
    """

    ranks: int
    nodes: int
    graphs: float
    steps: int
    imbalance: float
    idle: float
    parts: Parts
    step_s: float
    epoch_s: float
    node_hours: float
    graphs_per_s: float
    efficiency: float
    limit: Limit
    extrapolated: bool


def predict(
    cost: StepCost,
    loads: Sequence[Loads],
    networks: Sequence[Network],
    *,
    storage: Storage = Storage(),
    overlap: bool = True,
    algorithm: Algorithm | None = None,
) -> list[Prediction]:
    """Predict a run on each number of ranks, by rising number.

    Args:
        cost: of a step on one rank.
        loads: of the plan, for each number of ranks.
        networks: for each number of ranks.
        storage: that the samples are read from.
        overlap: whether gradients are sent during backward.
        algorithm: of all-reduces; None for the quickest.
    """
    found: list[Prediction] = []
    base = 0.0
    pairs = zip(loads, networks, strict=True)
    for load, network in sorted(pairs, key=lambda pair: pair[0].ranks):
        parts = step_parts(cost, load, network, storage=storage, overlap=overlap, algorithm=algorithm)
        epoch_s = parts.total * load.steps
        per_sample = epoch_s * load.ranks / load.samples
        base = base or per_sample
        largest = float(load.loads.max(axis=1).mean())
        least, most = cost.shares or (0.0, math.inf)
        found.append(
            Prediction(
                ranks=load.ranks,
                nodes=network.nodes,
                graphs=load.graphs,
                steps=load.steps,
                imbalance=load.imbalance,
                idle=load.idle,
                parts=parts,
                step_s=parts.total,
                epoch_s=epoch_s,
                node_hours=epoch_s / 3600 * network.nodes,
                graphs_per_s=load.samples / epoch_s,
                efficiency=base / per_sample,
                limit=parts.limit,
                extrapolated=not 0.9 * least <= largest <= 1.1 * most,
            )
        )
    return found


def step_parts(
    cost: StepCost,
    load: Loads,
    network: Network,
    *,
    storage: Storage = Storage(),
    overlap: bool = True,
    algorithm: Algorithm | None = None,
) -> Parts:
    """Where the time of a step goes on so many ranks; arguments as of `predict`."""
    line = cost.line
    rows = []
    for row in load.loads:
        mean, largest = float(row.mean()), float(row.max())
        busy = row[row > 0]
        slowest_s = expected_largest(line.fixed_s + line.per_cost_s * busy, cost.noise) if len(busy) else 0.0
        expected_s = line.fixed_s + line.per_cost_s * largest
        exposed = _exposed(cost, slowest_s, network, overlap=overlap, algorithm=algorithm)
        rows.append(
            (
                line.per_cost_s * mean,
                line.per_cost_s * (largest - mean),
                max(slowest_s - expected_s, 0.0),
                exposed.latency_s,
                exposed.bandwidth_s,
                cost.input.fixed_s + cost.input.per_cost_s * largest,
            )
        )
    compute, imbalance, noise, latency, bandwidth, reading = np.array(rows).mean(axis=0).tolist()
    fixed = line.fixed_s + cost.optimizer_s
    busy_s = compute + fixed + imbalance + noise + latency + bandwidth
    input_s = load.planning_s + reading
    if storage.bytes_per_s is not None:
        input_s = max(input_s, load.graphs * storage.bytes_per_sample / storage.bytes_per_s)
    return Parts(compute, fixed, imbalance, noise, latency, bandwidth, max(input_s - busy_s, 0.0))


def _exposed(
    cost: StepCost, slowest_s: float, network: Network, *, overlap: bool, algorithm: Algorithm | None
) -> Exposed:
    buckets = cost.buckets
    if not overlap:
        buckets = tuple(type(each)(each.size_bytes, 0.0) for each in buckets)
    return exposed_time(buckets, slowest_s, network, algorithm=algorithm)
