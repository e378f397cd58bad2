"""What a measurement of the network was taken on: machine, network, libraries."""

from collections.abc import Mapping
from importlib.metadata import version

from matsci_hpc.doctor.fabric import fast_devices
from matsci_hpc.processor import this_processor


def host_name(environ: Mapping[str, str]) -> str:
    """Slurm's name of the cluster, else the model of the processor: machines of one kind behave alike."""
    return environ.get("SLURM_CLUSTER_NAME") or this_processor().model


def fabric_name(environ: Mapping[str, str], nodes: int) -> str:
    """Provider of libfabric that was asked for, else the fast network that the kernel lists, else what is left."""
    if chosen := environ.get("FI_PROVIDER"):
        return chosen
    if nodes == 1:
        return "within the node"
    devices = fast_devices()
    return devices[0].partition(": ")[2].partition(",")[0] if devices else "TCP"


def library_versions(backend: str) -> dict[str, str]:
    """Of torch and of what carries the data of a backend that has been opened in this process."""
    found = {"torch": version("torch")}
    if backend in {"mpi", "horovod"}:
        from mpi4py import MPI

        library = (MPI.Get_library_version().splitlines() or ["unknown"])[0]
        found["mpi"] = library.split(", package")[0].strip("\0 ")
    if backend == "horovod":
        found["horovod"] = version("horovod")
    return found
