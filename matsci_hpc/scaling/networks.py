"""The links that a prediction counts with: of a known fabric, or from all-reduces that were measured."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.measurements import Measurement
from matsci_hpc.scaling.communication import Algorithm, Network, all_reduce_time
from matsci_hpc.scaling.fabrics import FABRICS
from matsci_hpc.scaling.link import Link

WITHIN_NODE = "shared-memory"
"""Fabric within a node where nothing else is known."""
NUMBER_BYTES = 4.0
LARGE_BYTES = 1e9
"""Of a tensor whose time is that of the bandwidth alone."""


@dataclass(frozen=True, slots=True)
class Links:
    """What joins ranks.

    Attributes:
        within: two ranks of a node.
        between: two nodes, by one port; None if it is not known.
        measured: whether adding up is in the measured bandwidths already.
        source: in words.
    """

    within: Link
    between: Link | None
    measured: bool
    source: str


def fabric_links(names: Sequence[str]) -> Links:
    """Links of known fabrics: one within a node, one between nodes, or either of them.

    Raises:
        UserInputError: there is no such fabric, or two of one kind.
    """
    within = between = None
    for name in names:
        fabric = FABRICS.get(name)
        if fabric is None:
            raise UserInputError(f"--fabric {name}: unknown; choose from {', '.join(FABRICS)}")
        if (fabric.within_node and within is not None) or (not fabric.within_node and between is not None):
            where = "within a node" if fabric.within_node else "between nodes"
            raise UserInputError(f"--fabric {name}: a second one {where}; name one of each kind at most")
        if fabric.within_node:
            within = fabric.link
        else:
            between = fabric.link
    inside = WITHIN_NODE if within is None else next(each for each in names if FABRICS[each].within_node)
    parts = [f"{each} (table, not measured)" for each in dict.fromkeys([inside, *names])]
    return Links(FABRICS[inside].link, between, measured=False, source=" and ".join(parts))


def measured_links(
    measurements: Iterable[Measurement], backend: str | None, message_bytes: float, algorithm: Algorithm | None
) -> Links | None:
    """Links from stored measurements of all-reduces, those of the most ranks; None if there are none.

    Args:
        measurements: from the file of `matsci-hpc doctor --comm`.
        backend: that counts; None for the one that is the quickest for such messages.
        message_bytes: size of a bucket of gradients.
        algorithm: by which the ranks are taken to have summed; None: by the quickest for each size.
    """
    known = [each for each in measurements if backend in {None, each.key.backend}]
    one_node = _best([each for each in known if each.key.nodes == 1], message_bytes)
    several = _best([each for each in known if each.key.nodes > 1], message_bytes)
    within = FABRICS[WITHIN_NODE].link if one_node is None else _within(one_node, algorithm)
    if one_node is None and several is None:
        return None
    between = None if several is None else _between(several, within, algorithm)
    sources = [_in_words(each) for each in (one_node, several) if each is not None]
    return Links(within, between, measured=True, source=", ".join(sources))


def _best(measurements: Sequence[Measurement], message_bytes: float) -> Measurement | None:
    """Of the most ranks; of those the quickest."""
    if not measurements:
        return None
    most = max(each.key.ranks for each in measurements)
    return min(
        (each for each in measurements if each.key.ranks == most),
        key=lambda each: each.latency_s + message_bytes / each.bandwidth_bytes_per_s,
    )


def _within(measured: Measurement, algorithm: Algorithm | None) -> Link:
    ranks = measured.key.ranks
    return _solve(measured, lambda link: Network(ranks, ranks, link, link), algorithm)


def _between(measured: Measurement, within: Link, algorithm: Algorithm | None) -> Link:
    """The links within nodes are known, and take what the model gives them."""
    key = measured.key
    return _solve(measured, lambda link: Network(key.ranks, key.ranks_per_node, within, link), algorithm)


def _solve(measured: Measurement, network: Callable[[Link], Network], algorithm: Algorithm | None) -> Link:
    """The link with which the model gives the measured latency and bandwidth, each by halving an interval.

    Where the links within nodes would take more than was measured, a link between nodes that costs next to nothing.
    """

    def latency_s(tried: float) -> float:
        return all_reduce_time(NUMBER_BYTES, network(Link(tried, math.inf)), algorithm).latency_s

    def per_byte_s(tried: float) -> float:
        return all_reduce_time(LARGE_BYTES, network(Link(0.0, 1 / tried)), algorithm).transfer_s / LARGE_BYTES

    latency = _inverse(latency_s, measured.latency_s)
    return Link(latency, 1 / _inverse(per_byte_s, 1 / measured.bandwidth_bytes_per_s))


def _inverse(rising: Callable[[float], float], wanted: float) -> float:
    """Where a function that never falls reaches a value, between a thousandth of it and the value itself."""
    low, high = 1e-3 * wanted, wanted
    while high - low > 1e-9 * wanted:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return high


def _in_words(measured: Measurement) -> str:
    key = measured.key
    name = f"{key.backend} {key.operations}" if key.operations else key.backend
    on = f"{key.nodes:,} {'node' if key.nodes == 1 else 'nodes'}"
    return f"{name} measured on {key.ranks:,} ranks of {on} ({key.host}, {measured.date[:10]})"
