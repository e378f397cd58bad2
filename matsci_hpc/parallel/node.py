"""Which ranks run on the same node."""

import socket
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from matsci_hpc.parallel.communicator import Communicator


@dataclass(frozen=True, slots=True)
class Node:
    """The node of this rank.

    Attributes:
        ranks: the ranks on it, ascending.
        first: whether this rank is the lowest of them.
        nodes: number of nodes of the job.
    """

    ranks: tuple[int, ...]
    first: bool
    nodes: int


def find_node(comm: Communicator) -> Node:
    """Compare host names; collective. Not every launcher tells local ranks, but every rank knows its host."""
    key = torch.tensor(xxhash.xxh3_64_intdigest(_host().encode()) >> 1, dtype=torch.int64)
    keys = comm.all_gather(key).flatten().tolist()
    ranks = tuple(rank for rank, other in enumerate(keys) if other == int(key))
    return Node(ranks=ranks, first=ranks[0] == comm.rank, nodes=len(set(keys)))


def _host() -> str:
    """Name of the host and, since containers may all bear one name, the number that the kernel drew at its start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"
