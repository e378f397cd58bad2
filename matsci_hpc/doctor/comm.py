"""What `matsci-hpc doctor --comm` does: measure all-reduces on every backend that can be used, and keep the result."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import torch

from matsci_hpc.doctor.comm_table import table
from matsci_hpc.doctor.surroundings import fabric_name, host_name, library_versions
from matsci_hpc.errors import MachineError, MatsciError, RankError, UserInputError
from matsci_hpc.parallel.all_reduce_times import fit_line, time_all_reduces
from matsci_hpc.parallel.backends import BACKENDS, open_backend, usable
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.deadline import meeting_within
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.measurements import Key, Measurement, keep_measurement, measurements_path
from matsci_hpc.parallel.node import find_node
from matsci_hpc.parallel.watchdog import Limits
from matsci_hpc.parallel.watched import Meeting, meet, meet_again

LIMITS = Limits(step_s=60.0, startup_s=120.0)
CONTROL = "gloo"
"""Joins the ranks from beginning to end, since every torch has it."""


@dataclass(frozen=True, slots=True)
class Road:
    """A backend, with Horovod's operations."""

    backend: str
    operations: str | None = None

    @property
    def name(self) -> str:
        """As a heading."""
        return f"{self.backend} {self.operations}" if self.operations else self.backend


def doctor_comm(*, seconds: float, as_json: bool) -> int:
    """Measure, print, keep; collective.

    Args:
        seconds: for each backend, about.
        as_json: print one object instead of a table.

    Returns:
        The exit code: 3 if no backend could be measured.

    Raises:
        UserInputError: there is one rank.
        MachineError: the ranks cannot find each other.
    """
    info = discover(os.environ)
    if info.size == 1:
        raise UserInputError(
            "doctor --comm measures what ranks send each other, and this is one rank alone: start it by "
            "`mpirun -n 2 matsci-hpc doctor --comm`, or in a job by `srun matsci-hpc doctor --comm`"
        )
    with meeting_within(LIMITS.startup_s, info.rank):
        meeting = meet(info, LIMITS)
        control = open_backend(CONTROL, meeting)
    measured: list[Measurement] = []
    unusable: dict[str, str] = {}
    warnings: list[str] = []
    for road in _roads():
        outcome = _measure(road, control, meeting, seconds)
        if isinstance(outcome, str):
            unusable[road.name] = outcome
            continue
        measured.append(outcome)
        # At once: if the next backend ends the job, this one's numbers are safe.
        trouble = keep_measurement(measurements_path(), outcome) if info.rank == 0 else None
        warnings += [trouble] if trouble else []
    control.close()
    if info.rank == 0:
        _show(measured, unusable, warnings, as_json=as_json)
    return 0 if measured else MachineError.exit_code


def _roads() -> Iterator[Road]:
    """Backends that take tensors of the processor; Horovod keeps to one kind of operations in a process."""
    for each in BACKENDS.values():
        if "cpu" in each.devices:
            operations = os.environ.get("HOROVOD_CPU_OPERATIONS", "MPI").lower() if each.name == "horovod" else None
            yield Road(each.name, operations)


def _measure(road: Road, control: Communicator, meeting: Meeting, seconds: float) -> Measurement | str:
    """Numbers, or why there are none; collective."""
    reason = _anywhere(control, usable(road.backend))
    if reason is None and road.backend == "ccl":
        reason = "is joined by the same group of torch as gloo, which a process has one of"
    if reason is not None:
        return reason
    comm = control
    if road.backend != CONTROL:
        opened = _open(road, control, meeting)
        reason = _anywhere(control, opened if isinstance(opened, str) else None)
        if isinstance(opened, str) or reason is not None:
            return reason or str(opened)
        comm = opened
    try:
        points = time_all_reduces(comm, control, seconds)
    except RankError:
        raise  # without that rank nothing goes on
    except MatsciError as error:  # the same on every rank
        return str(error)
    node = find_node(control)
    key = Key(
        backend=road.backend,
        operations=road.operations,
        ranks=comm.size,
        nodes=node.nodes,
        ranks_per_node=_most(control, len(node.ranks)),
        device="cpu",
        host=host_name(os.environ),
        partition=os.environ.get("SLURM_JOB_PARTITION"),
        fabric=fabric_name(os.environ, node.nodes),
        versions=library_versions(road.backend),
    )
    if comm is not control:
        comm.close()
    latency_s, bandwidth = fit_line(points)
    return Measurement(
        key=key,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        small_s=points[0].time_s,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth,
        points=tuple(points),
    )


def _open(road: Road, control: Communicator, meeting: Meeting) -> Communicator | str:
    """The ranks joined by another backend, or why this one is not."""
    tell: Callable[[int], int] = control.broadcast_object
    again = meet_again(meeting, LIMITS, tell)
    if road.operations is not None:
        from matsci_hpc.parallel.horovod import choose_operations

        choose_operations(road.operations)
    try:
        with meeting_within(LIMITS.startup_s, meeting.info.rank):
            return open_backend(road.backend, again)
    except MatsciError as error:
        return str(error)


def _anywhere(control: Communicator, reason: str | None) -> str | None:
    """Why not, if there is a reason on any rank; collective."""
    reasons = control.all_gather(torch.tensor(reason is not None)).tolist()
    if not any(reasons):
        return None
    others = ", ".join(str(rank) for rank, has in enumerate(reasons) if has)
    return reason or f"cannot be used on ranks {others}"


def _most(control: Communicator, value: int) -> int:
    most = torch.tensor(value)
    control.all_reduce(most, "max")
    return int(most)


def _show(measured: list[Measurement], unusable: dict[str, str], warnings: list[str], *, as_json: bool) -> None:
    if as_json:
        numbers = [each.model_dump() for each in measured]
        click.echo(json.dumps({"file": str(measurements_path()), "measurements": numbers, "not_usable": unusable}))
    else:
        click.echo("\n".join(table(measured, unusable)))
        if not warnings:
            click.echo(f"\nkept in {measurements_path()}")
    for each in warnings:
        print(f"matsci-hpc: warning: {each}", file=sys.stderr)
