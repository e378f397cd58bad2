"""Processor: sockets, cores, memory domains, limits of the container or job, vector instructions."""

import os
from collections.abc import Iterator
from pathlib import Path

from matsci_hpc.cores import domains_of, list_text, memory_domains
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.words import bytes_in_words, counted
from matsci_hpc.processor import this_processor

SIMD = ("sse4_2", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Vector instructions that matter here, from old to new."""
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def cgroup_limits(folder: Path = Path("/sys/fs/cgroup")) -> tuple[float | None, int | None]:
    """Cores and bytes of memory that the control group of this container grants; None where it does not limit.

    Args:
        folder: of the control groups, version 2 or 1.
    """
    quota, period = [*_words(folder / "cpu.max"), "max", "100000"][:2]
    if quota == "max":
        quota = (_words(folder / "cpu/cpu.cfs_quota_us") or ["-1"])[0]
        period = (_words(folder / "cpu/cpu.cfs_period_us") or ["100000"])[0]
    memory = (_words(folder / "memory.max") or _words(folder / "memory/memory.limit_in_bytes") or ["max"])[0]
    cores = int(quota) / int(period) if int(quota) > 0 else None
    # Version 1 says "no limit" by a number near the largest one.
    size = int(memory) if memory != "max" and int(memory) < 1 << 60 else None
    return cores, size


def cpu_findings() -> Iterator[Finding]:
    """Look at this machine."""
    found = this_processor()
    sockets, cores = counted(found.sockets, "socket"), counted(found.cores, "core")
    threads = f", {found.threads // found.cores} threads each" if found.threads > found.cores else ""
    yield Finding("ok", "processor", f"{found.model}: {sockets}, {cores}{threads}")
    allowed = os.sched_getaffinity(0)
    domains = memory_domains()
    mine = domains_of(allowed, domains)
    text = f"{counted(len(allowed), 'CPU')} of {found.threads} for this process: {list_text(allowed)}"
    yield Finding("ok", "cores", text)
    granted, memory = cgroup_limits()
    if granted is not None and granted < len(allowed):
        advice = f"set OMP_NUM_THREADS={max(1, int(granted))}: more threads would be put to sleep in turns"
        yield Finding("warning", "cores", f"the container grants {granted:.3g} cores of them", advice)
    listed = "; ".join(f"{number}: {list_text(domains[number] & allowed)}" for number in mine)
    yield Finding("ok", "NUMA", f"{counted(len(mine), 'memory domain')}{f' ({listed})' if len(mine) > 1 else ''}")
    yield Finding("ok", "SIMD", ", ".join(each for each in SIMD if each in found.flags) or "none that is known here")
    if not BF16 & found.flags:
        yield Finding("note", "SIMD", "no bf16 instructions: `precision: bf16` is slower than float32 on this CPU")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = f", {bytes_in_words(memory)} for this container" if memory is not None and memory < total else ""
    yield Finding("ok", "memory", f"{bytes_in_words(total)}{limit}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _read(path).split()
