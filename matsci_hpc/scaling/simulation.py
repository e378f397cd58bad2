"""Steps of many ranks, message by message: what the closed formulas of `prediction.py` are checked against.

Each rank has a clock, and all clocks are one array. A rank's message goes out when the rank has what it sends and the
port that it takes is free, and the receiver goes on when the message is there and its own part of the round is done. No
rank waits for all others unless its messages make it: so, unlike in the formulas, a bucket may be under way on some
ranks while others still compute, and messages queue at the ports of a node in the order in which they come.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.communication import Algorithm, Network
from matsci_hpc.scaling.exposure import Bucket

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(slots=True)
class _Ports:
    """When messages can go out again.

    Attributes:
        free_s: of each port of each node, float64 [nodes, ports].
        rank_free_s: of each rank's way to others of its node, float64 [ranks].
    """

    free_s: Floats
    rank_free_s: Floats


def simulate_steps(
    compute_s: Floats,
    buckets: Sequence[Bucket],
    network: Network,
    algorithm: Algorithm,
    *,
    noise: float = 0.0,
    seed: int = 0,
    last_bytes: float = 16.0,
) -> Floats:
    """Time of each step from its common start to the moment at which the last rank has all sums.

    Args:
        compute_s: mean time of each rank in each step, float64 [steps, ranks].
        buckets: in the order in which they are sent.
        network: that joins the ranks.
        algorithm: of all-reduces. `tree` and `halving` want a power of two of ranks, of nodes in `two_level`, whose
            nodes then sum by halving.
        noise: standard deviation of a rank's time over its mean.
        seed: of the noise.
        last_bytes: of the sum that follows the last bucket.

    Raises:
        UserInputError: the ranks do not fit the algorithm.
    """
    ranks, counted = network.ranks, network.nodes if algorithm == "two_level" else network.ranks
    if algorithm != "ring" and counted & (counted - 1):
        raise UserInputError(f"a simulation of {algorithm} wants a power of two, not {counted:,}")
    if algorithm == "two_level" and ranks % network.ranks_per_node:
        raise UserInputError(f"{ranks:,} ranks do not fill nodes of {network.ranks_per_node:,}")
    random = np.random.Generator(np.random.Philox(seed))
    times = np.maximum(compute_s * (1 + noise * random.standard_normal(compute_s.shape)), 0.0)
    return np.array([_step(row, buckets, network, algorithm, last_bytes) for row in times])


def _step(
    compute_s: Floats, buckets: Sequence[Bucket], network: Network, algorithm: Algorithm, last_bytes: float
) -> float:
    clocks = np.zeros(network.ranks)
    if network.ranks == 1:
        return float(compute_s[0])
    ports = _Ports(np.zeros((network.nodes, network.ports)), np.zeros(network.ranks))
    for bucket in buckets:
        ready_s = np.maximum(clocks, (1 - bucket.left) * compute_s)
        clocks = _all_reduce(ready_s, bucket.size_bytes, network, algorithm, ports)
    clocks = _all_reduce(np.maximum(clocks, compute_s), last_bytes, network, algorithm, ports)
    return float(clocks.max())


def _all_reduce(clocks: Floats, size_bytes: float, network: Network, algorithm: Algorithm, ports: _Ports) -> Floats:
    """Clocks after the sum of a tensor that each rank has at the time of its clock."""
    everybody = np.arange(network.ranks)
    if algorithm == "ring":
        return _ring(clocks, size_bytes, everybody[None], network, ports)[everybody]
    if algorithm == "tree":
        for power in range(network.ranks.bit_length() - 1):
            clocks = _exchange(clocks, everybody ^ (1 << power), size_bytes, size_bytes, network, ports)
        return clocks
    if algorithm == "halving":
        return _halving(clocks, size_bytes, everybody, 1, network, ports)
    inner = network.ranks_per_node
    nodes = everybody.reshape(-1, inner)
    clocks = _ring(clocks, size_bytes, nodes, network, ports, hands_out=False)
    clocks = _halving(clocks, size_bytes / inner, everybody, inner, network, ports)
    return _ring(clocks, size_bytes, nodes, network, ports, adds_up=False)


def _ring(
    clocks: Floats,
    size_bytes: float,
    rings: Numbers,
    network: Network,
    ports: _Ports,
    *,
    adds_up: bool = True,
    hands_out: bool = True,
) -> Floats:
    """Rings side by side: rows of ranks, each of which sends a part to the next one in every round."""
    members = rings.shape[1]
    target = np.empty(network.ranks, dtype=np.int64)
    target[rings] = np.roll(rings, -1, axis=1)
    part = size_bytes / members
    for adds, wanted in ((part, adds_up), (0.0, hands_out)):
        for _ in range(members - 1 if wanted else 0):
            clocks = _exchange(clocks, target, part, adds, network, ports)
    return clocks


def _halving(
    clocks: Floats, size_bytes: float, everybody: Numbers, apart: int, network: Network, ports: _Ports
) -> Floats:
    """Pairs of ranks that are so far apart, then twice as far; halves of what they have, then back."""
    powers = range((len(everybody) // apart).bit_length() - 1)
    for power in powers:
        part = size_bytes / 2 ** (power + 1)
        clocks = _exchange(clocks, everybody ^ (apart << power), part, part, network, ports)
    for power in reversed(powers):
        part = size_bytes / 2 ** (power + 1)
        clocks = _exchange(clocks, everybody ^ (apart << power), part, 0.0, network, ports)
    return clocks


def _exchange(
    clocks: Floats, target: Numbers, size_bytes: float, added_bytes: float, network: Network, ports: _Ports
) -> Floats:
    """Every rank sends one message; clocks when each has received its own and added it up."""
    source = np.empty_like(target)
    ranks = np.arange(network.ranks)
    source[target] = ranks
    node = ranks // network.ranks_per_node
    leaves = node != node[target]
    stays = ~leaves
    begun_s = np.maximum(clocks, ports.rank_free_s)
    ports.rank_free_s[stays] = begun_s[stays] + size_bytes / network.within.bandwidth_bytes_per_s
    arrived = begun_s + network.within.message_s(size_bytes)
    if leaves.any():
        sent_s = _through_ports(clocks[leaves], node[leaves], size_bytes, network, ports)
        arrived[leaves] = sent_s + network.between.latency_s
    return np.maximum(clocks, arrived[source]) + added_bytes / network.sum_bytes_per_s


def _through_ports(ready_s: Floats, node: Numbers, size_bytes: float, network: Network, ports: _Ports) -> Floats:
    """When each message is through its port: those of a node take the ports in turn, first come, first served."""
    busy_s = size_bytes / network.between.bandwidth_bytes_per_s
    order = np.lexsort((ready_s, node))
    first = np.searchsorted(node[order], np.arange(network.nodes))
    place = np.arange(len(order)) - first[node[order]]
    done = np.empty_like(ready_s)
    for port in range(network.ports):
        mine = order[place % network.ports == port]
        if not len(mine):
            continue
        turn = place[place % network.ports == port] // network.ports
        # A queue: each ends when the latest of those before it could begin, plus the time of all from there on.
        start_s = np.maximum(ready_s[mine], ports.free_s[node[mine], port])
        lead = start_s - turn * busy_s
        done[mine] = _running_max(lead, node[mine]) + (turn + 1) * busy_s
        np.maximum.at(ports.free_s[:, port], node[mine], done[mine])
    return done


def _running_max(values: Floats, group: Numbers) -> Floats:
    """Largest value so far within each group of neighbours."""
    span = float(values.max() - values.min()) + 1.0
    return np.asarray(np.maximum.accumulate(values + group * span) - group * span)
