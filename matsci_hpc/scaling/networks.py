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
LEAST = 1e-5
"""Share of a measured all-reduce from which on the part of a link in it can be told."""


Road = tuple[str, str | None]
"""A backend and Horovod's operations."""


@dataclass(frozen=True, slots=True)
class Links:
    """What joins ranks.

    Attributes:
        within: two ranks of a node.
        between: two nodes, by one port; None if it is not known.
        measured: whether adding up is in the measured bandwidths already.
        source: in words.
        remarks: what to mind, in words.
    """

    within: Link
    between: Link | None
    measured: bool
    source: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """What a prediction is about, as far as the network is concerned.

    Attributes:
        message_bytes: size of a bucket of gradients.
        algorithm: by which the ranks are taken to have summed; None: by the quickest for each size.
        ports: of a node.
        nodes: of the largest run.
    """

    message_bytes: float
    algorithm: Algorithm | None = None
    ports: int = 1
    nodes: int = 1


def fabric_names(names: Sequence[str]) -> tuple[str | None, str | None]:
    """Names of the fabrics within a node and between nodes; None where none is named.

    Raises:
        UserInputError: there is no such fabric, or two of one kind.
    """
    found: dict[bool, str] = {}
    for name in names:
        fabric = FABRICS.get(name)
        if fabric is None:
            raise UserInputError(f"--fabric {name}: unknown; choose from {', '.join(FABRICS)}")
        if fabric.within_node in found:
            where = "within a node" if fabric.within_node else "between nodes"
            raise UserInputError(f"--fabric {name}: a second one {where}; name one of each kind at most")
        found[fabric.within_node] = name
    return found.get(True), found.get(False)


def fabric_links(names: Sequence[str]) -> Links:
    """Links of known fabrics: one within a node, one between nodes, or either of them.

    Raises:
        UserInputError: there is no such fabric, or two of one kind.
    """
    within, between = fabric_names(names)
    inside = within or WITHIN_NODE
    source = " and ".join(map(_of_table, (inside, between) if between else (inside,)))
    return Links(FABRICS[inside].link, FABRICS[between].link if between else None, measured=False, source=source)


def _of_table(name: str) -> str:
    return f"{name} (table, not measured)"


def measured_links(
    measurements: Iterable[Measurement], backend: str | None, layout: Layout, fabrics: Sequence[str] = ()
) -> Links | None:
    """Links from stored measurements of all-reduces of one backend, those of the most ranks; None if there are none.

    Args:
        measurements: from the file of `matsci-hpc doctor --comm`, of one kind of machine.
        backend: that counts; None for the one that was measured on one node or several, as the prediction is for, on
            the most ranks, and of those the quickest for such messages.
        layout: of the prediction. Links between nodes are those with which as many ports as it has take what was
            measured.
        fabrics: from the table, for links that were not measured.

    Raises:
        UserInputError: there is no such fabric, or two of one kind.
    """
    inner, outer = fabric_names(fabrics)
    known = [each for each in measurements if each.key.ranks > 1 and backend in {None, each.key.backend}]
    wanted = [each for each in known if (each.key.nodes > 1) == (layout.nodes > 1)]
    chosen = _best(wanted or known, layout.message_bytes)
    if chosen is None:
        return None
    known = [each for each in known if _road(each) == _road(chosen)]
    one_node = _best([each for each in known if each.key.nodes == 1], layout.message_bytes)
    several = _best([each for each in known if each.key.nodes > 1], layout.message_bytes)
    sources = [_in_words(each) for each in (one_node, several) if each is not None]
    remarks: list[str] = []
    if one_node is not None:
        within = _within(one_node, layout.algorithm)
    else:
        within = FABRICS[inner or WITHIN_NODE].link
        sources.append(f"within a node {_of_table(inner or WITHIN_NODE)}")
    between = None
    if several is not None:
        between = _between(several, within, layout, remarks)
    elif outer is not None:
        between = FABRICS[outer].link
        sources.append(f"between nodes {_of_table(outer)}")
    unused = [name for name, other in ((inner, one_node), (outer, several)) if name and other is not None]
    remarks += [f"--fabric {name} counts for nothing: its links were measured" for name in unused]
    return Links(within, between, measured=True, source=", ".join(sources), remarks=tuple(remarks))


def _road(measured: Measurement) -> Road:
    return measured.key.backend, measured.key.operations


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
    link, _ = _solve(measured, lambda link: Network(ranks, ranks, link, link), algorithm)
    return link


def _between(measured: Measurement, within: Link, layout: Layout, remarks: list[str]) -> Link:
    """The links within nodes are known, and take what the model gives them."""
    key = measured.key
    link, open_parts = _solve(
        measured, lambda link: Network(key.ranks, key.ranks_per_node, within, link, layout.ports), layout.algorithm
    )
    if open_parts:
        remarks.append(
            f"the {' and the '.join(open_parts)} between nodes cannot be told from the measurement on {key.nodes:,} "
            "nodes, in which the links within the nodes take all the time: counted as next to nothing, so larger "
            "numbers of nodes come out too well; --fabric without --comm counts by the table"
        )
    return link


def _solve(
    measured: Measurement, network: Callable[[Link], Network], algorithm: Algorithm | None
) -> tuple[Link, list[str]]:
    """The link with which the model gives the measured latency and bandwidth, each by halving an interval.

    Where the links within nodes would take more than was measured, a link between nodes that costs next to nothing.

    Returns:
        The link, and which of its two numbers the measurement does not tell.
    """

    def latency_s(tried: float) -> float:
        return all_reduce_time(NUMBER_BYTES, network(Link(tried, math.inf)), algorithm).latency_s

    def per_byte_s(tried: float) -> float:
        return all_reduce_time(LARGE_BYTES, network(Link(0.0, 1 / tried)), algorithm).transfer_s / LARGE_BYTES

    latency, knows_latency = _inverse(latency_s, measured.latency_s)
    per_byte, knows_bandwidth = _inverse(per_byte_s, 1 / measured.bandwidth_bytes_per_s)
    parts = (("latency", knows_latency), ("bandwidth", knows_bandwidth))
    return Link(latency, 1 / per_byte), [name for name, known in parts if not known]


def _inverse(rising: Callable[[float], float], wanted: float) -> tuple[float, bool]:
    """Where a function that never falls reaches a value, from `LEAST` of it on, and whether it does reach it there.

    A link by one port may be slower than the all-reduce, whose parts take several ports at the same time.
    """
    if wanted == 0:
        return 0.0, True
    low, high = LEAST * wanted, wanted
    if rising(low) >= wanted:
        return low, False
    while rising(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1e-9 * wanted:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return high, True


def _in_words(measured: Measurement) -> str:
    key = measured.key
    name = f"{key.backend} {key.operations}" if key.operations else key.backend
    on = f"{key.nodes:,} {'node' if key.nodes == 1 else 'nodes'}"
    return f"{name} measured on {key.ranks:,} ranks of {on} ({key.host}, {measured.date[:10]})"
