"""Networks that ranks talk over, for predictions where nothing was measured: two numbers each, and where they are from.

Bandwidths are of one port in one direction, latencies of a message between two programs. A rate of a port is never
reached in full. A measurement (`matsci-hpc doctor --comm`) is better than any of them.
"""

from dataclasses import dataclass

from matsci_hpc.scaling.link import Link

GBIT = 1e9 / 8
"""Bytes per second of 1 Gb/s."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """A network between nodes, or between the ranks of a node.

    Attributes:
        title: what it is.
        link: latency, and bandwidth of one port.
        within_node: whether it joins the ranks of one node only.
        bandwidth_source, latency_source: where the two figures are from.
    """

    title: str
    link: Link
    within_node: bool
    bandwidth_source: str
    latency_source: str


FABRICS = {
    "hdr": Fabric(
        "InfiniBand HDR, one port of 200 Gb/s",
        Link(1.2e-6, 192 * GBIT),
        within_node=False,
        bandwidth_source="Azure, performance of HBv3: 192 Gb/s one way",
        latency_source="the same: 1.2 us by MPI for one byte",
    ),
    "ndr": Fabric(
        "InfiniBand NDR, one port of 400 Gb/s",
        Link(1.2e-6, 400 * GBIT),
        within_node=False,
        bandwidth_source="the port's rate, InfiniBand Trade Association",
        latency_source="assumed as of HDR",
    ),
    "slingshot-11": Fabric(
        "HPE Slingshot 11, one port of 200 Gb/s",
        Link(2.0e-6, 200 * GBIT),
        within_node=False,
        bandwidth_source="the port's rate: ALCF, Aurora interconnect",
        latency_source="assumed",
    ),
    "omni-path": Fabric(
        "Omni-Path 100, one port of 100 Gb/s",
        Link(1.2e-6, 12.4e9),
        within_node=False,
        bandwidth_source="osu_mbw_mr at LANL, gist hppritcha/8da4436a216c9d96bf10ad9d403da03f: 12.38 GB/s",
        latency_source="assumed as of HDR",
    ),
    "100gbe": Fabric(
        "Ethernet of 100 Gb/s, TCP",
        Link(2.0e-5, 100 * GBIT),
        within_node=False,
        bandwidth_source="the port's rate, IEEE 802.3",
        latency_source="assumed, for TCP through two kernels",
    ),
    "nvlink-4": Fabric(
        "NVLink 4 of an H100 or H200",
        Link(2.0e-6, 450e9),
        within_node=True,
        bandwidth_source="NVIDIA: 900 GB/s in both directions together; 376 to 380 of 450 are seen (NCCL issue 1264)",
        latency_source="NCCL, src/graph/tuning.cc: 0.6 to 3.4 us a hop of a ring, by protocol",
    ),
    "nvlink-3": Fabric(
        "NVLink 3 of an A100",
        Link(2.0e-6, 300e9),
        within_node=True,
        bandwidth_source="NVIDIA: 600 GB/s in both directions together",
        latency_source="as of NVLink 4",
    ),
    "shared-memory": Fabric(
        "memory of the node",
        Link(0.6e-6, 13e9),
        within_node=True,
        bandwidth_source="measured by ping-pong: Open MPI 5, two ranks of an AMD EPYC, 1 MiB (16 MiB: 2.3 GB/s)",
        latency_source="the same",
    ),
}
"""By the name that `matsci-hpc predict --fabric` takes."""
