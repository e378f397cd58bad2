"""From a config to a started job."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matsci_hpc.launch.submitit_job import SubmititJob


def submit(
    config: Path | str,
    overrides: Iterable[str] = (),
    *,
    site: str,
    nodes: int | None = None,
    ranks: int | None = None,
    time_limit: str | None = None,
    after: "Sequence[SubmititJob | str | int]" = (),
    check: bool = True,
) -> "SubmititJob":
    """Submit a preparation or a training run to Slurm through submitit.

    Args:
        config: YAML file of `matsci-hpc prep` or `matsci-hpc train`.
        overrides: Dotted `key=value` pairs.
        site: Name of a shipped site, or path of a site file; its scheduler must be Slurm.
        nodes: Number of nodes; left out, as many as the ranks need.
        ranks: Ranks of the whole job; left out, the nodes are filled.
        time_limit: Of one life of the job, HH:MM:SS or D-HH:MM:SS; left out, that of config or site.
        after: Jobs that must succeed first, as returned by this function or by number.
        check: Look for what must fail before anything is submitted.

    Returns:
        submitit's Job. `result()` waits for the last life of the run and gives what rank 0 returned.

    Raises:
        UserInputError: Config, overrides, site or numbers are wrong, or submitit has no form for such a job.
        MachineError: Slurm is missing or refuses, or the folder cannot be written.
    """
    # Submitit is imported only by who uses it: everything below matsci_hpc.launch imports this module.
    from matsci_hpc.launch.from_python import submit_config

    return submit_config(
        config, overrides, site=site, nodes=nodes, ranks=ranks, time_limit=time_limit, after=after, check=check
    )
