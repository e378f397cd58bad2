"""How the ranks of a job find each other: a key-value store on rank 0 that all connect to."""

import os
import socket
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from zlib import crc32

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from matsci_hpc.errors import MachineError, RankError
from matsci_hpc.parallel.discovery import RankInfo
from matsci_hpc.parallel.mpi import load_mpi

LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS = 20000, 40000


def open_store(info: RankInfo, environ: MutableMapping[str, str], timeout: timedelta) -> TCPStore:
    """The store of this job, at MASTER_ADDR if that is set, else where Slurm or MPI says.

    Args:
        info: this rank.
        environ: the environment; on one node, gloo is told in it to use the loopback interface unless told otherwise.
        timeout: longest wait for the other ranks.

    Raises:
        MachineError: rank 0 cannot be reached, or nothing tells where it is.
    """
    if info.size == info.local_size:
        environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    address = known_address(info, environ)
    try:
        if address is None:
            return _store_by_mpi(info, timeout)
        host, port = address
        serves = info.rank == 0 and store_is_on_first(environ)
        return TCPStore(host, port, info.size, is_master=serves, timeout=timeout, wait_for_workers=False)
    except (DistError, RuntimeError) as error:
        where = f"{address[0]}:{address[1]}" if address else "the address that MPI gave"
        reason = str(error).splitlines()[0]
        raise RankError(info.rank, f"cannot meet the others at {where}: {reason}") from None


def store_is_on_first(environ: Mapping[str, str]) -> bool:
    """Whether rank 0 holds the store; torchrun keeps one of its own, to which every rank is a client."""
    return environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def known_address(info: RankInfo, environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port of rank 0 as far as the environment tells: MASTER_ADDR, or Slurm's node list and job number."""
    if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
        return environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    if info.launcher != "srun":
        return None
    # Steps of one job may run side by side, so the step's number decides on the port too.
    step = f"{environ.get('SLURM_JOB_ID', '')}.{environ.get('SLURM_STEP_ID', '')}"
    port = FIRST_PORT + crc32(step.encode()) % PORTS
    return (LOOPBACK if info.size == info.local_size else _node_of_rank_0(environ)), port


def _node_of_rank_0(environ: Mapping[str, str]) -> str:
    """The first node of a Slurm step; in a heterogeneous job, that of the first component with nodes in the step.

    Slurm sorts the node list of a step by name, but its ranks by component: rank 0 need not be on the first node.
    """
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    if "SLURM_HET_SIZE" in environ:
        in_step = set(_names(nodes))
        for component in range(int(environ["SLURM_HET_SIZE"])):
            of_component = environ.get(f"SLURM_JOB_NODELIST_HET_GROUP_{component}")
            for name in _names(of_component) if of_component else ():
                if name in in_step:
                    return name
    return first_node(nodes)


def first_node(nodes: str) -> str:
    """The first host of a Slurm node list such as `n[03-05,9],login1`."""
    return _names(nodes)[0]


def _names(nodes: str) -> list[str]:
    """The hosts of a Slurm node list, at least one."""
    from submitit.slurm.slurm import SlurmParseException, _parse_node_list

    try:
        names = [str(name) for name in _parse_node_list(nodes)]
    except SlurmParseException:
        names = []
    if not names:
        raise MachineError(f"cannot read the node list {nodes!r}; set MASTER_ADDR and MASTER_PORT in the job script")
    return names


def _store_by_mpi(info: RankInfo, timeout: timedelta) -> TCPStore:
    """Rank 0 opens the store on a free port and tells the others through MPI, so that no port can be taken twice."""
    try:
        MPI = load_mpi(info, threads="multiple")  # as Horovod's thread wants it, if that comes
    except MachineError as error:
        raise MachineError(f"{error}; or tell the ranks where rank 0 is, by MASTER_ADDR and MASTER_PORT") from None
    comm = MPI.COMM_WORLD
    one_node = comm.Split_type(MPI.COMM_TYPE_SHARED).Get_size() == info.size
    if one_node:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    host = LOOPBACK if one_node else socket.gethostname()
    store = (
        TCPStore(host, 0, info.size, is_master=True, timeout=timeout, wait_for_workers=False)
        if info.rank == 0
        else None
    )
    host, port = comm.bcast((host, store.port if store else 0), root=0)
    return store or TCPStore(host, port, info.size, is_master=False, timeout=timeout)
