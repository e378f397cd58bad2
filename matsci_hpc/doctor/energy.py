"""Whether the energy of this node can be read, and why not."""

from collections.abc import Iterator

from matsci_hpc.doctor.gpu import gpus_on_bus
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.telemetry.nvml import open_nvml
from matsci_hpc.telemetry.rapl import Rapl


def energy_findings() -> Iterator[Finding]:
    """Look at this machine."""
    try:
        yield Finding("ok", "processors", f"RAPL: {', '.join(Rapl().names)}")
    except OSError as error:
        yield Finding("note", "processors", f"not read: {error}")
    if any(gpu.vendor == "NVIDIA" for gpu in gpus_on_bus()):
        try:
            open_nvml()
            yield Finding("ok", "GPUs", "NVML")
        except OSError as error:
            yield Finding("note", "GPUs", f"not read: {error}")
