"""What `matsci-hpc doctor` does."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from matsci_hpc.doctor.cpu import cpu_findings
from matsci_hpc.doctor.energy import energy_findings
from matsci_hpc.doctor.fabric import fabric_findings
from matsci_hpc.doctor.files import file_findings
from matsci_hpc.doctor.gpu import gpu_findings
from matsci_hpc.doctor.meet import every_rank
from matsci_hpc.doctor.mpi import mpi_findings
from matsci_hpc.doctor.packages import package_findings
from matsci_hpc.doctor.rank import rank_findings, this_rank
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.show import COLORS
from matsci_hpc.preflight.words import counted

Section = tuple[str, Callable[[], Iterator[Finding]]]


def doctor(path: Path | None, *, as_json: bool) -> int:
    """Look at everything, print it, and give the exit code: 3 if no training could run here.

    Under a launcher every rank tells of itself, and rank 0 prints.

    Args:
        path: a data set or run directory whose file system is looked at, too.
        as_json: print one object instead of a table.

    Raises:
        UserInputError: there is no such path.
    """
    if path is not None and not path.exists():
        raise UserInputError(f"{path}: no such file or folder")
    info = discover(os.environ)
    ranks = every_rank(this_rank(os.environ), info)
    if info.rank != 0:
        return 0
    sections: list[Section] = [
        ("packages", package_findings),
        ("CPU", cpu_findings),
        ("GPU", gpu_findings),
        ("energy", energy_findings),
        ("MPI", lambda: mpi_findings(alone=info.size == 1)),
        ("network", fabric_findings),
        ("ranks", lambda: rank_findings(ranks, info)),
    ]
    if path is not None:
        sections.append((str(path), lambda: file_findings(path)))
    found: dict[str, list[Finding]] = {}
    for name, look in sections:
        if as_json:
            found[name] = list(look())
        else:
            click.echo(click.style(name, bold=True))
            found[name] = _show(look())
    everything = [each for findings in found.values() for each in findings]
    counts = {f"{level}s": sum(each.level == level for each in everything) for level in ("error", "warning")}
    if as_json:
        tables = {name: [asdict(each) for each in findings] for name, findings in found.items()}
        click.echo(json.dumps({"sections": tables} | counts, indent=1))
    else:
        click.echo(f"\n{_verdict(counts['errors'], counts['warnings'])}")
    return MachineError.exit_code if counts["errors"] else 0


def _show(findings: Iterator[Finding]) -> list[Finding]:
    """Print findings as they come: level, topic and text in columns, and advice below."""
    shown = list(findings)
    width = max((len(each.topic) for each in shown), default=0)
    for each in shown:
        level = click.style(f"{'' if each.level == 'ok' else each.level:<8}", fg=COLORS[each.level])
        click.echo(f"  {level}{each.topic:<{width}}  {each.text}")
        if each.advice:
            click.echo(f"{'':{width + 12}}-> {each.advice}")
    return shown


def _verdict(errors: int, warnings: int) -> str:
    if errors:
        return f"{counted(errors, 'error')}: training cannot run here"
    if warnings:
        return f"training can run here; {counted(warnings, 'warning')} above may cost time or hold something back"
    return "training can run here"
