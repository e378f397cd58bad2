"""Packages: found, version, usable, why not, and what is used instead."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from matsci_hpc.doctor.child import ChildError, run_python
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.versions import installed, same_series, series

Fits = Callable[[str, str | None], str | None]
"""Why a version does not fit that of torch, which may be missing; None if it does. Asked before anything is imported:
some pairs end the interpreter."""


def _anything(_version: str, _torch: str | None) -> None:
    return None


def dgl_series(found: str, _torch: str | None) -> str | None:
    """DGL 2 cannot be imported beside a torch of today."""
    return None if series(found) < (2, 0) else "DGL 2 needs an older torch; 1.1.3 works"


@dataclass(frozen=True, slots=True)
class Package:
    """A package.

    Attributes:
        name: as pip knows it.
        module: what is imported, as Python code; empty if its version says enough.
        use: what it is for, or what is used instead of it.
        needed: training cannot run without it.
        fits: whether its version fits.
        before: code that must run before the import.
    """

    name: str
    module: str
    use: str
    needed: bool = False
    fits: Fits = _anything
    before: str = ""


PACKAGES = (
    Package("torch", "torch", "training", needed=True),
    Package("numpy", "numpy", "everything", needed=True),
    Package("h5py", "h5py", "shards", needed=True),
    Package("safetensors", "safetensors.torch", "checkpoints", needed=True),
    Package("mpi4py", "mpi4py.MPI", "ranks of preparation, backend mpi; without it one rank prepares"),
    Package("pymatgen", "pymatgen.core", "CIF files and neighbours; without it no preparation"),
    Package("submitit", "submitit", "submit --via submitit; without it job scripts"),
    Package("horovod", "horovod.torch", "backend horovod; without it gloo"),
    Package("triton", "triton", "torch.compile on a GPU; without it the CPU only"),
    Package("tensorboard", "", "records.sinks: tensorboard; without it metrics.jsonl alone"),
    Package("wandb", "", "records.sinks: wandb; without it metrics.jsonl alone"),
    Package("mlflow-skinny", "", "records.sinks: mlflow; without it metrics.jsonl alone"),
    Package("nvidia-ml-py", "", "energy of GPUs of NVIDIA; without it that of processors alone"),
    Package("torch_geometric", "torch_geometric", "converters; without it our own batches"),
    Package(
        "dgl",
        "dgl",
        "a second backend of message passing; without it our own",
        fits=dgl_series,
        before="from matsci_hpc.models.dgl_layout import import_dgl; import_dgl()",
    ),
    Package(
        "intel-extension-for-pytorch",
        "intel_extension_for_pytorch",
        "optimize: ipex; without it optimize: compile",
        fits=same_series,
    ),
    Package(
        "oneccl-bindings-for-pytorch",
        "oneccl_bindings_for_pytorch",
        "backend ccl; without it gloo",
        fits=same_series,
    ),
)


def examine(package: Package, torch: str | None) -> Finding:
    """Look at one package."""
    found = installed(package.name)
    level = "error" if package.needed else "note"
    if found is None:
        return Finding(level, package.name, f"{'-':<12} not installed: {package.use}")  # type: ignore[arg-type]
    reason = package.fits(found, torch)
    if reason is None and package.module:
        try:
            run_python(f"{package.before}\nimport {package.module}")
        except ChildError as error:
            reason = str(error)
    if reason is None:
        return Finding("ok", package.name, f"{found:<12} {package.use.partition(';')[0]}")
    broken = "error" if package.needed else "warning"
    text = f"{found:<12} not usable: {reason}; {package.use}"
    return Finding(broken, package.name, text)  # type: ignore[arg-type]


def package_findings() -> Iterator[Finding]:
    """Look at all of them, a few at a time."""
    torch = installed("torch")
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield from pool.map(lambda package: examine(package, torch), PACKAGES)
