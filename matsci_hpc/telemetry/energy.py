"""Energy of the nodes and GPUs that a run computes on, each read by one rank."""

import math
from pathlib import Path

import torch
import xxhash

from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.node import find_node
from matsci_hpc.telemetry.nvml import GpuEnergy, gpu_uuid
from matsci_hpc.telemetry.rapl import POWERCAP, Rapl

BY_ANOTHER = "read by another rank"


class EnergyMeter:
    """What this rank reads, and in words why not what it does not.

    Attributes:
        cpu, gpu: what is read, or why nothing is.
    """

    def __init__(self, rapl: Rapl | str, gpu: GpuEnergy | str) -> None:
        self._rapl = rapl if isinstance(rapl, Rapl) else None
        self._gpu = gpu if isinstance(gpu, GpuEnergy) else None
        self.cpu = f"RAPL: {', '.join(rapl.names)}" if isinstance(rapl, Rapl) else rapl
        self.gpu = f"NVML: {gpu.name}" if isinstance(gpu, GpuEnergy) else gpu

    def tick(self) -> None:
        """To be called often, in whatever the run does: it costs a look at the clock, unless it is time to read."""
        if self._rapl is not None:
            try:
                self._rapl.tick()
            except OSError:
                self._rapl = None

    def take(self) -> tuple[float, float]:
        """Joules of this node's processors and of this rank's GPU since the last call; NaN for what is not read."""
        cpu_j = gpu_j = math.nan
        if self._rapl is not None:
            try:
                cpu_j = self._rapl.take()
            except OSError:  # taken away while the run goes on
                self._rapl = None
        if self._gpu is not None:
            try:
                gpu_j = self._gpu.take()
            except OSError:
                self._gpu = None
        return cpu_j, gpu_j


def open_meter(comm: Communicator, device: torch.device, folder: Path = POWERCAP) -> EnergyMeter:
    """Agree on who reads what: the lowest rank of a node its processors, the lowest one on a GPU that; collective.

    From then on every sign of progress of the rank is a tick of its meter: evaluations and checkpoints may outlast a
    round of a counter.

    Args:
        comm: the ranks.
        device: that this rank computes on.
        folder: where the kernel shows the counters of the processors.
    """
    rapl: Rapl | str = BY_ANOTHER
    if find_node(comm).first:
        try:
            rapl = Rapl(folder)
        except OSError as error:
            rapl = str(error)
    meter = _open_gpu(comm, device, rapl)
    if isinstance(rapl, Rapl):
        comm.activity.on_tick = meter.tick
    return meter


def _open_gpu(comm: Communicator, device: torch.device, rapl: Rapl | str) -> EnergyMeter:
    uuid, gpu = "", ""
    try:
        uuid = gpu_uuid(device) if device.type != "cpu" else ""
    except OSError as error:
        gpu = str(error)
    key = xxhash.xxh3_64_intdigest(uuid.encode()) >> 1
    keys = comm.all_gather(torch.tensor(key, dtype=torch.int64)).flatten().tolist()
    if not uuid:
        return EnergyMeter(rapl, gpu)
    if keys.index(key) != comm.rank:
        return EnergyMeter(rapl, BY_ANOTHER)
    try:
        return EnergyMeter(rapl, GpuEnergy(uuid))
    except OSError as error:
        return EnergyMeter(rapl, str(error))
