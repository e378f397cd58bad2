"""The processor of this machine, as the kernel describes it."""

from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown processor"


@dataclass(frozen=True, slots=True)
class Processor:
    """What /proc/cpuinfo says.

    Attributes:
        model: name.
        vendor: the name that it bears in itself, such as GenuineIntel; empty where it has none.
        sockets, cores, threads: of the machine; a core has one thread or more.
        flags: what it can do, such as avx2; empty if unknown.
    """

    model: str
    vendor: str
    sockets: int
    cores: int
    threads: int
    flags: frozenset[str]


def read_cpuinfo(text: str) -> Processor:
    """Count what a table of the form of /proc/cpuinfo lists."""
    blocks = []
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        if "processor" in fields:
            blocks.append(fields)
    first = blocks[0] if blocks else {}
    sockets = {each.get("physical id", "0") for each in blocks}
    cores = {(each.get("physical id", "0"), each.get("core id", each["processor"])) for each in blocks}
    return Processor(
        model=first.get("model name", UNKNOWN),
        vendor=first.get("vendor_id", ""),
        sockets=len(sockets),
        cores=len(cores),
        threads=len(blocks),
        flags=frozenset(first.get("flags", first.get("Features", "")).split()),
    )


def this_processor() -> Processor:
    """The one of this machine; all unknown where the kernel does not tell."""
    try:
        return read_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return read_cpuinfo("")
