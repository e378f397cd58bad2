"""How long an all-reduce takes on any number of ranks, from two numbers of each network.

A message of n bytes takes alpha + n beta (Hockney 1994). With P ranks, L = log2 P and gamma the time to add a byte
(Thakur, Rabenseifner and Gropp, Int. J. High Perform. Comput. Appl. 19 (2005) 49-66):

    ring                           2 (P-1) alpha + 2 (P-1)/P n beta + (P-1)/P n gamma
    tree (recursive doubling)      L (alpha + n beta + n gamma)
    halving (Rabenseifner)         2 L alpha + 2 (P-1)/P n beta + (P-1)/P n gamma
    two_level                      a ring among the K ranks of a node, before and after one of the above among the nodes
                                   for n/K bytes, which every rank of the node has with its like at the same time

A ring over N nodes crosses from node to node 2 N times at most, and only those messages have the latency between nodes
(NCCL counts so, too: src/graph/tuning.cc). Where P is no power of two, tree and halving fold the ranks beyond one into
others before and after: 2 (alpha + n beta) + n gamma more. Ranks lie in blocks on the nodes; messages that leave a node
at the same time share its ports. Buckets follow each other without overlap, which where ports are shared is up to a
tenth more than a simulation finds (two fifths for tree).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from matsci_hpc.scaling.link import Link

Algorithm = Literal["ring", "tree", "halving", "two_level"]
FLAT: tuple[Algorithm, ...] = ("ring", "tree", "halving")
ALGORITHMS: tuple[Algorithm, ...] = (*FLAT, "two_level")


@dataclass(frozen=True, slots=True)
class Network:
    """Ranks in blocks on nodes.

    Attributes:
        ranks: in all.
        ranks_per_node: in each block; the last one may be shorter.
        within: between two ranks of a node.
        between: between two nodes, by one port.
        ports: of a node. A message takes one of them.
        sum_bytes_per_s: how fast a rank adds what it received; infinite where the bandwidth was measured with it.
    """

    ranks: int
    ranks_per_node: int
    within: Link
    between: Link
    ports: int = 1
    sum_bytes_per_s: float = math.inf

    @property
    def nodes(self) -> int:
        """Nodes that the ranks take."""
        return -(-self.ranks // self.ranks_per_node)

    def shared(self, flows: int) -> Link:
        """What each of so many messages gets that leave a node at the same time."""
        bandwidth = self.between.bandwidth_bytes_per_s
        return replace(self.between, bandwidth_bytes_per_s=min(bandwidth, bandwidth * self.ports / flows))


@dataclass(frozen=True, slots=True)
class CommTime:
    """Time of an all-reduce in seconds, by what it is spent on; adding up counts as transfer.

    Attributes:
        latency_s: the part that does not grow with the size.
        transfer_s: the part that does.
        algorithm: how the ranks went about it.
    """

    latency_s: float
    transfer_s: float
    algorithm: str

    @property
    def total_s(self) -> float:
        """Both."""
        return self.latency_s + self.transfer_s


@dataclass(frozen=True, slots=True)
class Round:
    """Messages that all ranks send at the same time.

    Attributes:
        link: the slowest that is used.
        size_bytes: of each message.
        added_bytes: of what a rank adds up after it.
        repeats: such rounds one after the other.
    """

    link: Link
    size_bytes: float
    added_bytes: float
    repeats: int = 1


def all_reduce_time(size_bytes: float, network: Network, algorithm: Algorithm | None = None) -> CommTime:
    """Time of an all-reduce.

    Args:
        size_bytes: of the tensor.
        network: that joins the ranks.
        algorithm: None for the quickest, as a well-tuned library chooses by size and ranks.
    """
    if network.ranks == 1:
        return CommTime(0.0, 0.0, "none")
    if algorithm is None:
        tried = ALGORITHMS if _has_two_levels(network) else FLAT
        return min((all_reduce_time(size_bytes, network, each) for each in tried), key=lambda each: each.total_s)
    if algorithm == "two_level":
        return _two_level(size_bytes, network)
    rounds = {"ring": _ring, "tree": _tree, "halving": _halving}[algorithm](size_bytes, network)
    return _add_up(rounds, network, algorithm)


def _has_two_levels(network: Network) -> bool:
    return network.nodes > 1 and network.ranks_per_node > 1


def _add_up(rounds: Iterator[Round], network: Network, algorithm: str) -> CommTime:
    latency_s = transfer_s = 0.0
    for each in rounds:
        latency_s += each.repeats * each.link.latency_s
        transfer_s += each.repeats * each.size_bytes / each.link.bandwidth_bytes_per_s
        transfer_s += each.repeats * each.added_bytes / network.sum_bytes_per_s
    return CommTime(latency_s, transfer_s, algorithm)


def _ring(size_bytes: float, network: Network) -> Iterator[Round]:
    """P-1 rounds that add up and P-1 that hand out.

    What a rank waits for has come around the ring, so latencies of all its links count; but every link carries a part
    in every round, so the slowest one sets the rate.
    """
    ranks = network.ranks
    crossings = min(2 * network.nodes, 2 * (ranks - 1)) if network.nodes > 1 else 0
    bandwidth = network.within.bandwidth_bytes_per_s
    if network.nodes > 1:
        outside = network.between.bandwidth_bytes_per_s
        bandwidth = outside if network.ranks_per_node == 1 else min(bandwidth, outside)
    yield Round(replace(network.between, bandwidth_bytes_per_s=bandwidth), 0.0, 0.0, crossings)
    yield Round(replace(network.within, bandwidth_bytes_per_s=bandwidth), 0.0, 0.0, 2 * (ranks - 1) - crossings)
    part = Link(0.0, bandwidth)
    yield Round(part, size_bytes / ranks, size_bytes / ranks, ranks - 1)
    yield Round(part, size_bytes / ranks, 0.0, ranks - 1)


def _link_of_round(network: Network, number: int) -> Link:
    """Of the exchange with the rank 2^number away; where ranks were folded, they may be anywhere."""
    if network.nodes == 1:
        return network.within
    is_power = network.ranks & (network.ranks - 1) == 0
    if is_power and network.ranks_per_node % (1 << (number + 1)) == 0:
        return network.within
    return network.shared(min(network.ranks_per_node, network.ranks))


def _fold(size_bytes: float, network: Network) -> Iterator[Round]:
    if network.ranks & (network.ranks - 1):
        far = network.within if network.nodes == 1 or network.ranks_per_node % 2 == 0 else network.shared(1)
        yield Round(far, size_bytes, size_bytes)
        yield Round(far, size_bytes, 0.0)


def _tree(size_bytes: float, network: Network) -> Iterator[Round]:
    yield from _fold(size_bytes, network)
    for number in range(network.ranks.bit_length() - 1):
        yield Round(_link_of_round(network, number), size_bytes, size_bytes)


def _halving(size_bytes: float, network: Network) -> Iterator[Round]:
    """Near ranks first, when most is sent."""
    yield from _fold(size_bytes, network)
    for number in range(network.ranks.bit_length() - 1):
        part = size_bytes / 2 ** (number + 1)
        link = _link_of_round(network, number)
        yield Round(link, part, part)
        yield Round(link, part, 0.0)


def _two_level(size_bytes: float, network: Network) -> CommTime:
    """Ring in the node to leave each rank one part, all-reduce of the parts, ring to hand out."""
    together = min(network.ranks_per_node, network.ranks)
    part = size_bytes / together
    inside = Network(together, together, network.within, network.within, 1, network.sum_bytes_per_s)
    own = _add_up(_ring(size_bytes, inside), inside, "ring") if together > 1 else CommTime(0.0, 0.0, "none")
    outside = Network(network.nodes, 1, network.within, network.shared(together), 1, network.sum_bytes_per_s)
    others = all_reduce_time(part, outside)
    return CommTime(own.latency_s + others.latency_s, own.transfer_s + others.transfer_s, "two_level")
