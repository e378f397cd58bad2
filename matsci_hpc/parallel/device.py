"""Which device a rank computes on: the processor, or one of the GPUs that torch sees."""

import os
import time
from collections.abc import Mapping
from typing import Any

import torch

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.discovery import RankInfo

GRANTS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Variables by which schedulers say which GPUs of a node a job or a rank got."""
NONE_GRANTED = {"", "-1", "NoDevFiles"}


def visible_devices() -> dict[str, int]:
    """Number of GPUs that torch sees, by type. AMD's are of type cuda, too."""
    found = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }
    return {kind: count for kind, count in found.items() if count}


def choose_device(wanted: str, seen: Mapping[str, int], local_rank: int) -> tuple[str, int]:
    """Type and number of the device of a rank.

    Where a rank sees several, those of a node take them in turn; where it sees one, the launcher has bound it, or there
    is but one to share.

    Args:
        wanted: auto, cpu, cuda or xpu.
        seen: from `visible_devices`.
        local_rank: number of the rank on its node.

    Raises:
        MachineError: torch sees no such device.
    """
    kind = next(iter(seen), "cpu") if wanted == "auto" else wanted
    if kind == "cpu":
        return kind, 0
    if kind not in seen:
        others = ", ".join(seen) or "the CPU alone"
        raise MachineError(
            f"device: {wanted}, and torch {torch.__version__} sees none on this node, but {others}; `matsci-hpc "
            "doctor` tells why; take a job with GPUs, or set device: cpu"
        )
    return kind, local_rank % seen[kind]


def unused_grant(environ: Mapping[str, str]) -> str | None:
    """A variable by which the scheduler gave GPUs to this process; None if it gave none."""
    return next((name for name in GRANTS if environ.get(name, "") not in NONE_GRANTED), None)


def take_device(wanted: str, info: RankInfo) -> torch.device:
    """Make the device of this rank the one that torch takes where only a type is named.

    Raises:
        MachineError: torch sees no such device, or it cannot be used.
    """
    kind, number = choose_device(wanted, visible_devices(), info.local_rank)
    if kind == "cpu":
        grant = unused_grant(os.environ) if wanted == "auto" else None
        if grant is not None and info.rank == 0:
            print(
                f"matsci-hpc: warning: {grant}={os.environ[grant]} grants GPUs, but torch {torch.__version__} sees "
                "none: training takes the CPU; `matsci-hpc doctor` tells why, device: cpu ends this warning",
                flush=True,
            )
        return torch.device("cpu")
    device = torch.device(kind, number)
    try:
        torch.get_device_module(kind).set_device(number)
        torch.zeros(1, device=device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise MachineError(f"device {device} of rank {info.rank} cannot be used: {reason}") from None
    return device


def device_name(device: torch.device) -> str:
    """What a person calls it, such as `cuda:0 (NVIDIA H100 80GB HBM3)`."""
    if device.type == "cpu":
        return "cpu"
    return f"{device} ({torch.get_device_module(device.type).get_device_name(device)})"


def finish_work(kind: str) -> None:
    """Wait until the device has done what it was given, so that the time until now is that of the work."""
    if kind != "cpu":
        torch.get_device_module(kind).synchronize()


def mark(kind: str) -> Any:
    """A moment in the work of the device: for a GPU when it comes to what it is given next, else now."""
    if kind == "cpu":
        return time.perf_counter()
    event = torch.get_device_module(kind).Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: Any, last: Any) -> float:
    """Time between two marks; of a GPU once `finish_work` has waited for both."""
    return float(last - first) if isinstance(first, float) else 1e-3 * float(first.elapsed_time(last))


def peak_device_bytes(kind: str) -> int:
    """Most memory of the device that tensors of this process held at once; 0 for the processor."""
    return 0 if kind == "cpu" else int(torch.get_device_module(kind).max_memory_allocated())
