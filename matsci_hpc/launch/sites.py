"""What one machine expects of a job: scheduler, launcher, accounts, shape of a node."""

import shlex
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from matsci_hpc.config.base import Section
from matsci_hpc.config.loading import load_config
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.environment import is_variable_name
from matsci_hpc.resources import shipped


class Site(Section):
    """One machine. Written by somebody who knows it; everything in it is trusted."""

    # `environment: {FI_CXI_RX_MATCH_MODE: 1}` means the text 1.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    scheduler: Literal["local", "slurm"]
    """`local` starts ranks on this machine, `slurm` submits a batch job."""
    account: str | None = None
    """Project that is charged."""
    partition: str | None = None
    """Queue of the job."""
    qos: str | None = None
    """Quality of service."""
    options: list[str] = Field(default_factory=list)
    """Further sbatch options, such as `--constraint=cpu`."""
    launcher: str | None = None
    """Starts the ranks, such as `srun --mpi=pmix`. Split into words as by a shell, not expanded. Without it,
    `srun` with Slurm and `mpirun` here."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines that prepare a batch job, such as `module load openmpi`; run as they stand."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables for every rank. They win over those that matsci-hpc sets itself."""
    ranks_per_node: PositiveInt = 1
    """Ranks on a node unless the user says otherwise."""
    cpus_per_rank: PositiveInt = 1
    """Cores of a rank, and its OMP_NUM_THREADS. With `local` the cores are divided over the ranks instead."""
    gpus_per_rank: NonNegativeInt = 0
    """GPUs of a rank."""
    memory: str | None = Field(default=None, pattern=r"^[0-9]+[KMGT]?$")
    """Memory of a node, such as 120G; 0 asks for all of it."""
    time_limit: str | None = Field(default=None, pattern=r"^([0-9]+-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]$")
    """Wall-clock limit of one life of a job, HH:MM:SS or D-HH:MM:SS; training goes on in the next life."""
    signal_before_end_s: PositiveInt = 120
    """Seconds before the time limit at which training is asked to save and stop."""
    max_lives: PositiveInt = 100
    """A training job that starts this often without being done is given up."""

    @field_validator("environment")
    @classmethod
    def _exportable(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if not is_variable_name(name):
                raise ValueError(f"{name!r} is not a name a shell can export")
        return environment

    @field_validator("options")
    @classmethod
    def _long_options(cls, options: list[str]) -> list[str]:
        for option in options:
            if not option.startswith("--"):
                raise ValueError(f"{option!r} is not a long option; write it as --name=value")
        return options

    @field_validator("launcher")
    @classmethod
    def _some_launcher(cls, launcher: str | None) -> str | None:
        if launcher is not None and not shlex.split(launcher):
            raise ValueError("name the command that starts ranks, such as srun or mpirun")
        return launcher

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.scheduler == "local" and (self.setup or self.options):
            raise ValueError("setup and options are for batch jobs; prepare your own shell instead")
        if self.time_limit is not None and self.signal_before_end_s >= limit_in_seconds(self.time_limit):
            raise ValueError(
                f"signal_before_end_s {self.signal_before_end_s} is not within time_limit {self.time_limit}"
            )
        return self

    @property
    def launcher_words(self) -> list[str]:
        """The launcher and its options."""
        return shlex.split(self.launcher or ("srun" if self.scheduler == "slurm" else "mpirun"))


def limit_in_seconds(time_limit: str) -> int:
    """Seconds of HH:MM:SS or D-HH:MM:SS."""
    days, _, clock = time_limit.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def site_names() -> list[str]:
    """Names of the sites that ship with the package."""
    return sorted(path.stem for path in shipped("job_templates/sites").glob("*.yaml"))


def load_site(name_or_path: str) -> Site:
    """Read a site by the name of a shipped file, or from any YAML file.

    Args:
        name_or_path: `local`, or a path; what holds a slash or ends in .yaml or .yml is a path.

    Raises:
        UserInputError: No such site, or a file that is not a site.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    elif name_or_path in site_names():
        path = shipped(f"job_templates/sites/{name_or_path}.yaml")
    else:
        raise UserInputError(
            f"unknown site {name_or_path!r}; choose one of {', '.join(site_names())}, or give the path of a site file"
        )
    return load_config(Site, path)
