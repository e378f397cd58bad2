"""Cores and the memory domains (NUMA nodes) that they lie in, as the kernel lists them."""

from collections.abc import Iterable
from pathlib import Path

NODES = Path("/sys/devices/system/node")


def read_list(text: str) -> frozenset[int]:
    """The numbers of a list such as `0-3,8,10-11`.

    Raises:
        ValueError: it is none.
    """
    numbers: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def list_text(numbers: Iterable[int]) -> str:
    """`0-3,8` for 0, 1, 2, 3 and 8."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def memory_domains(folder: Path = NODES) -> dict[int, frozenset[int]]:
    """Cores of each memory domain that has any; empty where the kernel does not tell.

    Args:
        folder: of the kernel's description.
    """
    found: dict[int, frozenset[int]] = {}
    try:
        for node in folder.glob("node[0-9]*"):
            if cores := read_list((node / "cpulist").read_text(encoding="ascii")):
                found[int(node.name.removeprefix("node"))] = cores
    except (OSError, ValueError):
        return {}
    return dict(sorted(found.items()))


def domains_of(cores: Iterable[int], domains: dict[int, frozenset[int]]) -> list[int]:
    """The memory domains that some of the cores lie in: more than one, and half of all memory accesses go far."""
    wanted = set(cores)
    return [number for number, own in domains.items() if wanted & own]


def ranks_per_domain(ranks: int, cores: Iterable[int], domains: dict[int, frozenset[int]]) -> int | None:
    """How many ranks each memory domain gets; None where there is one domain, or they cannot be shared evenly.

    Args:
        ranks: on this machine.
        cores: that they may use.
        domains: cores of each domain.
    """
    wanted = set(cores)
    sizes = [len(wanted & own) for own in domains.values() if wanted & own]
    if len(sizes) < 2 or len(set(sizes)) > 1 or ranks % len(sizes):
        return None
    return ranks // len(sizes)
