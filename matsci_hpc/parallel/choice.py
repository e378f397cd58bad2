"""Which backend `auto` takes for several ranks: the natural one of their device, unless another was measured faster.

`matsci-hpc doctor --comm` measures. A measurement counts where it is of as many ranks on as many nodes, of the same
kind of machine and the same torch.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version

from torch.distributed import DistError

from matsci_hpc.errors import RankError
from matsci_hpc.parallel.backends import natural_backend, usable
from matsci_hpc.parallel.discovery import RankInfo
from matsci_hpc.parallel.measurements import Measurement, measurements_path, read_measurements
from matsci_hpc.parallel.roll_call import Roll
from matsci_hpc.parallel.watched import Meeting

WORTH = 0.9
"""Share of the natural backend's time that another one has to stay below: less is noise."""
WITHOUT_MPI = {"torchrun"}
"""Launchers whose ranks MPI does not know."""
_KEY = "backend chosen"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a measurement has to be of.

    Attributes:
        device: type of the device that the ranks compute on.
        ranks: their number.
        nodes: of the job; None if the launcher does not tell.
        host: Slurm's name of the cluster, else the model of the processor.
        torch: its version.
        launcher: as discovered.
    """

    device: str
    ranks: int
    nodes: int | None
    host: str
    torch: str
    launcher: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend, with Horovod's operations, and why it is not the natural one."""

    backend: str
    operations: str | None = None
    reason: str | None = None


def choose(
    here: Situation,
    message_bytes: float,
    measurements: Iterable[Measurement],
    natural: str,
    can_use: Callable[[str], bool],
) -> Choice:
    """Choose by the time of an all-reduce.

    Args:
        here: which measurements count.
        message_bytes: size of the all-reduce, about that of a bucket of gradients.
        measurements: all there are, newer ones of the same backend later.
        natural: the backend taken without any.
        can_use: whether a backend can be used in this process.
    """
    times: dict[tuple[str, str | None], float] = {}
    for each in measurements:
        key = each.key
        of = (key.device, key.ranks, key.nodes, key.host, key.versions.get("torch"))
        if of != (here.device, here.ranks, here.nodes, here.host, here.torch):
            continue
        if key.backend in {"mpi", "horovod"} and here.launcher in WITHOUT_MPI:
            continue
        if can_use(key.backend):
            times[key.backend, key.operations] = each.latency_s + message_bytes / each.bandwidth_bytes_per_s
    usual_s = times.get((natural, None))
    if usual_s is None:
        return Choice(natural)
    best = min(times, key=lambda road: times[road])
    if times[best] > WORTH * usual_s:
        return Choice(natural)
    reason = (
        f"an all-reduce of {message_bytes / 1e6:g} MB over {here.ranks} ranks was measured to take "
        f"{1e3 * times[best]:.3g} ms by it and {1e3 * usual_s:.3g} ms by {natural}"
    )
    return Choice(*best, reason)


def agree_on_backend(meeting: Meeting, roll: Roll, message_bytes: float) -> Choice:
    """Let rank 0 choose for ranks that have met, and say so if it is not the natural backend; collective.

    Raises:
        RankError: rank 0 is gone.
    """
    info, store = meeting.info, meeting.store
    try:
        if info.rank == 0:
            chosen = _choose_here(info, roll, message_bytes)
            store.set(_KEY, json.dumps(asdict(chosen)))
        chosen = Choice(**json.loads(store.get(_KEY)))
    except (DistError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RankError(info.rank, f"lost rank 0 while the ranks met ({reason}); its own output says why") from None
    return chosen


def _choose_here(info: RankInfo, roll: Roll, message_bytes: float) -> Choice:
    from matsci_hpc.doctor.surroundings import host_name

    device = roll.device
    if device is None:  # gloo alone takes tensors of both, by way of the host
        print(f"matsci-hpc: warning: ranks compute on devices of several kinds: {roll}; gloo joins them", flush=True)
        return Choice("gloo")
    nodes = -(-info.size // info.local_size) if info.local_size else None
    here = Situation(device, info.size, nodes, host_name(os.environ), version("torch"), info.launcher)
    known, trouble = read_measurements(measurements_path())
    if trouble is not None:
        print(f"matsci-hpc: warning: {trouble}", file=sys.stderr, flush=True)
    chosen = choose(here, message_bytes, known, natural_backend(device), lambda name: usable(name) is None)
    if chosen.reason is not None:
        print(f"ranks are joined by {chosen.backend}: {chosen.reason}", flush=True)
    return chosen
