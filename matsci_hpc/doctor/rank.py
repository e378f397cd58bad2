"""A rank as its launcher made it: cores, threads, memory domain, variables; and how ranks differ."""

import os
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matsci_hpc.cores import domains_of, list_text, memory_domains, read_list
from matsci_hpc.launch.environment import SETTINGS
from matsci_hpc.parallel.discovery import RankInfo
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.words import counted

TIED = ("OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
_HARMLESS = {"false", "disabled", "none"}


@dataclass(frozen=True, slots=True)
class Rank:
    """What one rank says of itself.

    Attributes:
        host: its node.
        cores: that it may use.
        domains: memory domains that these lie in.
        machine_cores: of the node.
        threads: by OMP_NUM_THREADS; None where that is not set.
        settings: variables of a rank by name; None for those that are not set.
    """

    host: str
    cores: str
    domains: tuple[int, ...]
    machine_cores: int
    threads: int | None
    settings: dict[str, str | None]


def this_rank(environ: Mapping[str, str]) -> Rank:
    """Look at this process."""
    cores = os.sched_getaffinity(0)
    threads = environ.get("OMP_NUM_THREADS", "")
    names = [each.name for each in SETTINGS] + ["OMP_NUM_THREADS", "MKL_NUM_THREADS", *TIED]
    return Rank(
        host=socket.gethostname(),
        cores=list_text(cores),
        domains=tuple(domains_of(cores, memory_domains())),
        machine_cores=os.cpu_count() or len(cores),
        threads=int(threads) if threads.isdigit() else None,
        settings={name: environ.get(name) for name in names},
    )


def rank_findings(ranks: Sequence[Rank], info: RankInfo) -> Iterator[Finding]:
    """What there is to say of all ranks: what is common once, and what differs.

    Args:
        ranks: by number.
        info: of this one.
    """
    alone = info.launcher == "none"
    hosts = sorted({each.host for each in ranks})
    where = f"on {hosts[0]}" if len(hosts) == 1 else f"on {len(hosts)} nodes"
    how = "started by hand" if alone else f"started by {info.launcher}"
    yield Finding("ok", "ranks", f"{counted(len(ranks), 'rank')} {where}, {how}")
    yield from _cores(ranks)
    yield from _threads(ranks)
    yield from _settings(ranks, alone=alone)


def groups(ranks: Sequence[Rank], of: str) -> dict[str | None, list[int]]:
    """Ranks by the value of a setting."""
    found: dict[str | None, list[int]] = defaultdict(list)
    for number, rank in enumerate(ranks):
        found[rank.settings[of]].append(number)
    return dict(found)


def _cores(ranks: Sequence[Rank]) -> Iterator[Finding]:
    """Bound ranks that share cores, and ranks whose cores lie in several memory domains."""
    users: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, rank in enumerate(ranks):
        if len(cores := read_list(rank.cores)) < rank.machine_cores:
            for core in cores:
                users[rank.host, core].append(number)
    crowded = sorted({tuple(each) for each in users.values() if len(each) > 1})
    if crowded and len(ranks) > 1:
        text = f"ranks {list_text(crowded[0])} are bound to the same cores"
        yield Finding("warning", "binding", text, "srun: --cpu-bind=cores; mpirun: --bind-to none or --map-by numa")
    wide = [number for number, rank in enumerate(ranks) if len(rank.domains) > 1]
    if wide and len(ranks) > 1:
        text = f"the cores of ranks {list_text(wide)} lie in several memory domains: far memory is slower"
        yield Finding("warning", "binding", text, "a rank per memory domain: `ranks_per_node` of the site, and binding")
    elif not crowded:
        spread = {rank.cores for rank in ranks}
        text = f"CPUs {spread.pop()} for each rank" if len(spread) == 1 else "no rank shares its cores"
        yield Finding("ok", "binding", text)


def _threads(ranks: Sequence[Rank]) -> Iterator[Finding]:
    """Threads of all ranks of a node against its cores."""
    if all(rank.threads is None for rank in ranks):
        yield Finding("note", "threads", "OMP_NUM_THREADS is not set: training shares the cores of a node by itself")
        return
    of_node: dict[str, int] = defaultdict(int)
    cores: dict[str, set[int]] = defaultdict(set)
    for rank in ranks:
        of_node[rank.host] += rank.threads or 1
        cores[rank.host] |= read_list(rank.cores)
    for host, count in of_node.items():
        if count > len(cores[host]):
            text = f"{counted(count, 'thread')} of all ranks on {counted(len(cores[host]), 'CPU')} of {host}"
            yield Finding("warning", "threads", text, "fewer ranks per node, or a smaller OMP_NUM_THREADS")
            return
    each = sorted({rank.threads or 1 for rank in ranks})
    yield Finding("ok", "threads", f"{' or '.join(map(str, each))} for each rank")


def _settings(ranks: Sequence[Rank], *, alone: bool) -> Iterator[Finding]:
    """Each variable of a rank: set, missing and what that costs, or different between ranks."""
    missing = []
    for setting in SETTINGS:
        found = groups(ranks, setting.name)
        if len(found) > 1:
            parts = (f"{value or 'not set'} on ranks {list_text(who)}" for value, who in found.items())
            yield Finding("warning", "environment", f"{setting.name}: {'; '.join(parts)}")
        elif None in found:
            missing.append(setting)
    for setting in missing:
        level = "note" if alone else "warning"
        yield Finding(level, "environment", f"{setting.name} is not set: {setting.without}")  # type: ignore[arg-type]
    if missing:
        advice = "`matsci-hpc submit` sets these; training started without it sets those of memory by itself"
        yield Finding("note", "environment", f"{len(SETTINGS) - len(missing)} of {len(SETTINGS)} are set", advice)
    else:
        yield Finding("ok", "environment", f"all {len(SETTINGS)} variables of a rank are set")
    yield from _tied(ranks[0].settings)


def _tied(settings: Mapping[str, str | None]) -> Iterator[Finding]:
    """Variables that bind threads, and MKL's threads where they are others than OpenMP's."""
    bound = {name: value for name in TIED if (value := settings[name])}
    proc = (settings["OMP_PROC_BIND"] or "").lower()
    if (proc and proc not in _HARMLESS) or (bound and proc not in _HARMLESS):
        names = ", ".join([*bound, *(["OMP_PROC_BIND"] if proc else [])])
        text = f"{names}: threads of loader and network share one core with the main thread"
        yield Finding("warning", "environment", text, "unset them, or set OMP_PROC_BIND=false")
    mkl, omp = settings["MKL_NUM_THREADS"], settings["OMP_NUM_THREADS"]
    if mkl and omp and mkl != omp:
        text = f"MKL_NUM_THREADS={mkl} wins over OMP_NUM_THREADS={omp} in torch"
        yield Finding("warning", "environment", text, "unset MKL_NUM_THREADS")
