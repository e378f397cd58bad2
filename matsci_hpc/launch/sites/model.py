"""What one machine expects of a job: scheduler, launcher, accounts, shape of its nodes."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from matsci_hpc.config.base import Section
from matsci_hpc.config.job import Memory, TimeLimit
from matsci_hpc.launch.environment import is_variable_name

SchedulerName = Literal["local", "slurm", "pbs", "lsf", "flux"]
GpuRequest = Literal["gpus-per-node", "gres", "none"]
MOST_LAST_CALL_S = 30
"""The longest time before its limit at which a job script ends ranks that have not stopped."""
PLACEHOLDERS = ("nodes", "ranks", "ranks_per_node", "cpus_per_rank", "gpus_per_rank")
"""Words in braces that a launcher may hold, such as {ranks}."""


def _known_placeholders(launcher: str | None) -> str | None:
    if launcher is None:
        return None
    if not shlex.split(launcher):
        raise ValueError("name the command that starts ranks, such as srun or mpirun")
    for name in re.findall(r"\{([^{}]*)\}", launcher):
        if name not in PLACEHOLDERS:
            raise ValueError(f"{{{name}}} is none of {', '.join(f'{{{each}}}' for each in PLACEHOLDERS)}")
    return launcher


def _options(options: list[str]) -> list[str]:
    for option in options:
        if not option.startswith("-"):
            raise ValueError(
                f"{option!r} is not an option; write it as the scheduler's manual does, such as --name=value"
            )
    return options


Launcher = Annotated[str | None, AfterValidator(_known_placeholders)]
Options = Annotated[list[str], AfterValidator(_options)]


class NodeKind(Section):
    """One kind of node of a machine that has several. What is left out is as for the whole site."""

    partition: str | None = None
    """Queue of these nodes."""
    options: Options = Field(default_factory=list)
    """Further options of the scheduler for these nodes, after those of the site."""
    launcher_options: list[str] = Field(default_factory=list)
    """Further options of the launcher for the ranks on these nodes, such as `--gpu-bind=closest`."""
    ranks_per_node: PositiveInt | None = None
    cpus_per_rank: PositiveInt | None = None
    gpus_per_rank: NonNegativeInt | None = None
    memory: Memory | None = None
    speed: PositiveFloat = 1.0
    """Speed of a rank on such a node against those on the other kinds; training divides its steps by it."""


class Container(Section):
    """The image that ranks run in."""

    image: str
    """Path of the image on a file system that compute nodes see, such as /scratch/images/matsci.sif."""
    command: list[str] = Field(default_factory=lambda: ["apptainer", "exec"], min_length=1)
    """Starts a program in an image; `singularity exec` and `podman-hpc run` work alike."""
    options: list[str] = Field(default_factory=list)
    """Options before the image, such as `--nv` for NVIDIA GPUs, `--rocm`, `--bind=/scratch`."""
    python: str = "python3"
    """Interpreter inside the image that has matsci-hpc."""


class Site(Section):
    """One machine. Written by somebody who knows it; everything in it is trusted."""

    # `environment: {FI_CXI_RX_MATCH_MODE: 1}` means the text 1.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    scheduler: SchedulerName
    """`local` starts ranks on this machine, the others submit a batch job."""
    description: str | None = None
    """One line for `matsci-hpc site list`."""
    documentation: list[str] = Field(default_factory=list)
    """Public pages that the figures in this file come from."""
    account: str | None = None
    """Project that is charged. With Slurm, SBATCH_ACCOUNT in your shell says it for all sites, and wins."""
    account_required: bool = False
    """The scheduler refuses jobs without an account: `submit` says so before it does."""
    partition: str | None = None
    """Queue of the job."""
    qos: str | None = None
    """Quality of service (Slurm)."""
    options: Options = Field(default_factory=list)
    """Further options of the scheduler, each a line of the script: `--constraint=cpu`, `-l filesystems=home`."""
    launcher: Launcher = None
    """Starts the ranks, such as `srun --mpi=pmix`; split into words as by a shell, not expanded. {nodes}, {ranks},
    {ranks_per_node}, {cpus_per_rank} and {gpus_per_rank} stand for the numbers of the job. Left out: the usual one of
    the scheduler."""
    binding: list[str] = Field(default_factory=list)
    """Options of the launcher that tie ranks to cores and GPUs, such as `--cpu-bind=cores`."""
    wrapper: list[str] = Field(default_factory=list)
    """Words between launcher and program, run by every rank: a script that shows each rank its own GPU."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines that prepare a batch job, such as `module load openmpi`; run as they stand."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables for every rank. They win over those that matsci-hpc sets itself."""
    ranks_per_node: PositiveInt = 1
    """Ranks on a node unless the user says otherwise."""
    cpus_per_rank: PositiveInt = 1
    """Cores of a rank, and its OMP_NUM_THREADS. With `local` the cores are divided over the ranks instead."""
    cpus_per_core: PositiveInt = 1
    """CPUs that Slurm counts for a core; 2 where it counts hardware threads. All other keys count cores."""
    gpus_per_rank: NonNegativeInt = 0
    """GPUs of a rank."""
    gpu_request: GpuRequest = "gpus-per-node"
    """How Slurm is asked for GPUs: `--gpus-per-node=4`, `--gres=gpu:4`, or not at all, where whole nodes come with
    theirs."""
    node_kinds: dict[str, NodeKind] = Field(default_factory=dict)
    """Kinds of nodes that one job may mix, by a name for `--nodes gpu=1,cpu=2`."""
    cores_per_node: PositiveInt | None = None
    """Cores that a job can use on a node, for checks."""
    gpus_per_node: NonNegativeInt | None = None
    """GPUs of a node, for checks."""
    memory_per_node: Memory | None = None
    """Memory that a job can use on a node, for checks."""
    memory: Memory | None = None
    """Memory of a node to ask for; left out, the scheduler's default."""
    time_limit: TimeLimit | None = None
    """Wall-clock limit of one life of a job; training goes on in the next life."""
    max_time_limit: TimeLimit | None = None
    """Longest limit that the queue grants, for checks."""
    signal_before_end_s: PositiveInt = 120
    """Seconds before the time limit at which training is asked to save and stop."""
    max_lives: PositiveInt = 100
    """A job that starts this often without being done is given up."""
    scratch: str | None = None
    """Fast shared file system, as a shell would write it ($SCRATCH): where runs and data sets belong."""
    node_local: str | None = None
    """Folder on a disk or in the memory of each node, as a shell would write it; becomes TMPDIR of every rank."""
    environment_archive: Path | None = None
    """Archive of a Python environment (`matsci-hpc site pack`), which Slurm's sbcast copies to `node_local` of each
    node before the ranks start: thousands of ranks that import torch from a shared file system wait for it."""
    container: Container | None = None
    master_address_suffix: str = Field(default="", pattern=r"^[A-Za-z0-9.-]*$")
    """Behind the name of the first node, where another name leads to the fast network (JUWELS Booster: i)."""

    @property
    def last_call_s(self) -> int:
        """Seconds before the time limit at which a job script ends ranks that have not stopped."""
        return min(max(self.signal_before_end_s // 5, 5), MOST_LAST_CALL_S, self.signal_before_end_s // 2)

    @field_validator("environment")
    @classmethod
    def _exportable(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if not is_variable_name(name):
                raise ValueError(f"{name!r} is not a name a shell can export")
        return environment

    @field_validator("scratch", "node_local")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        # It stands in double quotes in the script: variables are wanted, commands are not.
        if path is not None and not re.fullmatch(r"[A-Za-z0-9_./$%{}:+ -]+", path):
            raise ValueError(f"{path!r} holds more than a path with variables, such as $SCRATCH/runs")
        return path

    @field_validator("node_kinds")
    @classmethod
    def _plain_names(cls, kinds: dict[str, NodeKind]) -> dict[str, NodeKind]:
        for name in kinds:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{name!r} is not a name for a kind of node; use small letters, digits and _")
        return kinds

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.scheduler == "local" and (self.setup or self.options or self.environment_archive or self.container):
            raise ValueError("setup, options and containers are for batch jobs; prepare your own shell instead")
        if self.scheduler != "slurm" and self.environment_archive:
            raise ValueError("environment_archive is copied by Slurm's sbcast, which this scheduler has not")
        if self.scheduler != "slurm" and self.node_kinds:
            raise ValueError("node_kinds make one job of unequal nodes, which only Slurm has")
        if self.scheduler == "local" and self.wrapper:
            raise ValueError("wrapper is for batch jobs")
        if self.scheduler != "slurm" and (self.cpus_per_core != 1 or self.gpu_request == "gres"):
            raise ValueError("cpus_per_core and gpu_request: gres are words of Slurm, and this is another scheduler")
        if self.environment_archive and self.container:
            raise ValueError("give environment_archive or container, not both: each brings its own Python")
        if self.environment_archive and not self.node_local:
            raise ValueError("environment_archive needs node_local, the folder that it is unpacked in")
        if self.scheduler != "slurm" and self.qos:
            raise ValueError(
                "qos is a word of Slurm; name the queue in partition, or write an option of this scheduler"
            )
        if self.time_limit is not None and self.signal_before_end_s >= limit_in_seconds(self.time_limit):
            raise ValueError(
                f"signal_before_end_s {self.signal_before_end_s} is not within time_limit {self.time_limit}"
            )
        return self


def limit_in_seconds(time_limit: str) -> int:
    """Seconds of HH:MM:SS or D-HH:MM:SS."""
    days, _, clock = time_limit.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def limit_text(time_s: int) -> str:
    """HH:MM:SS or D-HH:MM:SS of so many seconds."""
    days, rest = divmod(time_s, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def memory_in_bytes(memory: str) -> int:
    """Bytes of 120G and the like, in powers of 1024 as Slurm counts; a bare number counts MB."""
    units = {"K": 1, "M": 2, "G": 3, "T": 4}
    number, unit = (memory[:-1], memory[-1]) if memory[-1] in units else (memory, "M")
    return int(number) << (10 * units[unit])
