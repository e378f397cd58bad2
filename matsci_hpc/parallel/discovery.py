"""Who am I among how many: a pure function of the environment that a launcher left."""

from collections.abc import Mapping
from dataclasses import dataclass

from matsci_hpc.errors import MachineError


@dataclass(frozen=True, slots=True)
class RankInfo:
    """What the launcher says of this process.

    Attributes:
        rank: 0 to size - 1.
        size: number of ranks (the world size).
        local_rank: number of this rank on its node.
        local_size: ranks on this node, or None if the launcher does not tell.
        launcher: name of the rule that applied, "none" for a process started by hand.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int | None
    launcher: str


# Rank, size, local rank, local size. The innermost launcher stands first: torchrun may be started by srun, and
# mpirun inside a Slurm allocation, whose own variables then describe the outer step.
_LAUNCHERS = (
    ("torchrun", ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")),
    (
        "Open MPI",
        (
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
        ),
    ),
    ("PALS", ("PALS_RANKID", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE")),
    ("jsrun", ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE")),
    ("Flux", ("FLUX_TASK_RANK", "FLUX_JOB_SIZE", "FLUX_TASK_LOCAL_ID", "")),
    # SLURM_NTASKS also stands in the batch shell, where there is one process; the step's own count does not.
    ("srun", ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")),
    ("Hydra", ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")),
)


def discover(environ: Mapping[str, str]) -> RankInfo:
    """The rank of this process by the first launcher whose rank and size are in the environment.

    Raises:
        MachineError: they are no numbers, or not a rank below a size.
    """
    for launcher, (rank, size, local_rank, local_size) in _LAUNCHERS:
        if rank in environ and size in environ:
            # srun tells the number of nodes instead of the ranks on this one.
            alone = launcher == "srun" and environ.get("SLURM_STEP_NUM_NODES") == "1"
            here = environ[size] if alone else environ.get(local_size)
            try:
                info = RankInfo(
                    rank=int(environ[rank]),
                    size=int(environ[size]),
                    local_rank=int(environ.get(local_rank, "0")),
                    local_size=int(here) if here else None,
                    launcher=launcher,
                )
            except ValueError:
                info = None
            if info is None or not 0 <= info.rank < info.size:
                raise MachineError(
                    f"{rank}={environ[rank]} and {size}={environ[size]} in the environment are not a rank and the "
                    "number of ranks; unset them where nothing but this process was started"
                )
            return info
    return RankInfo(rank=0, size=1, local_rank=0, local_size=1, launcher="none")
