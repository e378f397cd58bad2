"""The section `job` of a config: what the run asks of a scheduler, unless the command line says otherwise."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from matsci_hpc.config.base import Section

TimeLimit = Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]$")]
"""HH:MM:SS or D-HH:MM:SS. In YAML it needs quotes."""
Memory = Annotated[str, Field(pattern=r"^[0-9]+[KMGT]?$")]
"""Such as 120G; a bare number counts MB, and 0 asks for all that a node has."""


class JobRequest(Section):
    """Size of a job. What is left out, the site decides."""

    nodes: PositiveInt | dict[str, PositiveInt] | None = None
    """Number of nodes; for a job of unequal nodes the number of each kind that the site knows, such as
    {gpu: 1, cpu: 2}. Left out: as many as the ranks need."""
    ranks: PositiveInt | None = None
    """Ranks of the whole job. Left out: the nodes are filled as the site says."""
    cpus_per_rank: PositiveInt | None = None
    """Cores of a rank."""
    gpus_per_rank: NonNegativeInt | None = None
    """GPUs of a rank."""
    memory: Memory | None = None
    """Memory of a node."""
    time_limit: TimeLimit | None = None
    """Wall-clock limit of one life of the job."""
