"""Measured all-reduces as a table for people: sizes below each other, backends side by side."""

from collections.abc import Sequence

import click

from matsci_hpc.parallel.measurements import Measurement, Point
from matsci_hpc.preflight.words import counted

CELL = 24
_MARGIN = 11


def table(measured: Sequence[Measurement], unusable: dict[str, str]) -> list[str]:
    """Lines: time and GB/s of each size, the fastest marked, the fitted numbers, and what is not usable and why.

    Args:
        measured: on the same ranks.
        unusable: reasons by backend.
    """
    lines = []
    if measured:
        key = measured[0].key
        lines.append(f"all-reduce of float32: {counted(key.ranks, 'rank')} on {counted(key.nodes, 'node')}, {key.host}")
        lines += ["", _row("", [click.style(_centred(_name(each)), bold=True) for each in measured])]
        columns = [{point.bytes: point for point in each.points} for each in measured]
        for size in sorted(set().union(*columns)):
            points = [column.get(size) for column in columns]
            best = min(point.time_s for point in points if point)
            cells = [
                _cell(point, fastest=len(points) > 1 and point.time_s == best) if point else "" for point in points
            ]
            lines.append(_row(_size(size), cells))
        lines += ["", _row("latency", [_centred(_time(each.latency_s)) for each in measured])]
        bandwidths = [f"{each.bandwidth_bytes_per_s / 1e9:.3g} GB/s" for each in measured]
        lines.append(_row("bandwidth", [_centred(each) for each in bandwidths]))
        lines += ["", "median of the slowest rank, ± half of the middle half; GB/s: size over time; *: fastest"]
    lines += [f"{name}: not measured: {reason}" for name, reason in unusable.items()]
    horovod = [each.key.operations for each in measured if each.key.backend == "horovod"]
    if horovod:
        other = "CCL" if horovod[0] == "mpi" else "MPI"
        lines.append(f"horovod keeps to one kind of operations: HOROVOD_CPU_OPERATIONS={other} measures the other")
    return lines


def _name(each: Measurement) -> str:
    return f"{each.key.backend} {each.key.operations}" if each.key.operations else each.key.backend


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:>{_MARGIN}}  {''.join(cell or ' ' * CELL for cell in cells)}".rstrip()


def _centred(text: str) -> str:
    return f"{text:^{CELL}}"


def _cell(point: Point, *, fastest: bool) -> str:
    """As `  85.2 us ±9%   0.01 *`, CELL wide."""
    spread = 50 * (point.high_s - point.low_s) / point.time_s
    rate = point.bytes / point.time_s / 1e9
    text = f"{_time(point.time_s):>8} {f'±{spread:.0f}%':<6}{rate:>6.2f} {'*' if fastest else ' '}"
    return click.style(f"{text:<{CELL}}", fg="green" if fastest else None)


def _time(time_s: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if time_s >= size:
            return f"{time_s / size:.3g} {unit}"
    return f"{time_s / 1e-6:.3g} us"


def _size(count: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} bytes"
