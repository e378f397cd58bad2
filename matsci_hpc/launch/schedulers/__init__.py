"""The schedulers that jobs can be written for, one module each."""

from matsci_hpc.launch.schedulers.base import Scheduler
from matsci_hpc.launch.schedulers.flux import Flux
from matsci_hpc.launch.schedulers.lsf import Lsf
from matsci_hpc.launch.schedulers.pbs import Pbs
from matsci_hpc.launch.schedulers.slurm import Slurm

SCHEDULERS: dict[str, Scheduler] = {each.name: each for each in (Slurm(), Pbs(), Lsf(), Flux())}
"""By the name in a site file. `local` is none: there is nothing to queue for."""
