"""What a Slurm cluster says about itself to somebody on a login node."""

import getpass
import re
from dataclasses import dataclass

from matsci_hpc.launch.sites.program import ask

_FIELDS = "%P|%l|%D|%c|%m|%G|%X|%Y|%Z"


@dataclass(frozen=True, slots=True)
class Nodes:
    """Equal nodes of a partition.

    Attributes:
        number: of them.
        cpus: as Slurm counts them on a node: cores or hardware threads.
        memory_mb: of a node.
        gpus: of a node.
        sockets, threads_per_core: of a node and its cores.
        cores: of a node.
    """

    number: int
    cpus: int
    memory_mb: int
    gpus: int
    sockets: int
    cores: int
    threads_per_core: int

    @property
    def cpus_per_core(self) -> int:
        """CPUs that Slurm counts for a core."""
        return self.threads_per_core if self.cpus == self.cores * self.threads_per_core else 1


@dataclass(frozen=True, slots=True)
class Partition:
    """A queue of Slurm.

    Attributes:
        name: of it.
        default: jobs land here if they name none.
        max_time_s: longest wall time; None if there is no limit.
        nodes: groups of equal nodes.
    """

    name: str
    default: bool
    max_time_s: int | None
    nodes: tuple[Nodes, ...]


def partitions() -> list[Partition] | str:
    """All partitions that this user sees, or why they are not known."""
    reply = ask(["sinfo", "--exact", "--noheader", f"--format={_FIELDS}"])
    return parse_sinfo(reply.output) if reply.good else reply.complaint


def parse_sinfo(text: str) -> list[Partition]:
    """Partitions from the lines of sinfo, in its order."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != _FIELDS.count("|") + 1:
            continue
        name, limit, number, cpus, memory, gres, sockets, cores, threads = fields
        nodes = Nodes(
            number=int(number),
            cpus=_leading(cpus),
            memory_mb=_leading(memory),
            gpus=gpus_in(gres),
            sockets=_leading(sockets),
            cores=_leading(sockets) * _leading(cores),
            threads_per_core=_leading(threads),
        )
        plain = name.rstrip("*")
        before = found[plain].nodes if plain in found else ()
        found[plain] = Partition(plain, name.endswith("*"), seconds(limit), (*before, nodes))
    return list(found.values())


def gpus_in(gres: str) -> int:
    """Number of GPUs in `gpu:a100:4(S:0-1),nvme:1`; those of several types are added."""
    return sum(int(number) for number in re.findall(r"(?:^|,)gpu(?::[^:,()]+)*?:(\d+)(?=[(,]|$)", gres))


def seconds(limit: str) -> int | None:
    """Seconds of [D-][[HH:]MM:]SS, where Slurm may also write D-HH; None for infinite."""
    days, dash, clock = limit.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]):
        return None
    numbers = [int(part) for part in parts]
    if dash or len(numbers) == 3:  # behind days, hours come first
        hours, minutes, rest = (*numbers, 0, 0)[:3]
    else:
        hours, (minutes, rest) = 0, (*numbers, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def associations() -> dict[str, set[str]] | str:
    """QOS by account that this user may charge, or why they are not known."""
    reply = ask(["sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=account,qos"])
    if not reply.good:
        return reply.complaint
    found: dict[str, set[str]] = {}
    for line in reply.output.splitlines():
        account, _, qos = line.strip().partition("|")
        if account:
            found.setdefault(account, set()).update(each for each in qos.split(",") if each)
    return found or "the accounting database knows no account of this user"


def mpi_plugins() -> set[str] | str:
    """What `srun --mpi=` can be, or why that is not known."""
    reply = ask(["srun", "--mpi=list"])
    # Older versions of Slurm print the list as if it was an error.
    named = set(re.findall(r"\b(?:none|openmpi|cray_shasta|pmi2|pmix(?:_v\d+)?)\b", reply.output + reply.error))
    return named or reply.complaint


def _leading(text: str) -> int:
    """The number that a field begins with: `4000+` where nodes differ."""
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
