"""`srun matsci-hpc doctor --comm` over two nodes."""

import sys

from matsci_hpc.parallel.measurements import read_measurements


def test_two_nodes_measure_and_keep_the_numbers(cluster, tmp_path):
    path = tmp_path / "communication.json"
    doctor = f"{sys.executable} -m matsci_hpc doctor --comm --seconds 0.3"
    line = f"MATSCI_HPC_MEASUREMENTS={path} srun -N2 -n2 --mpi=pmix {doctor}"
    said = cluster.run("bash", "-c", line)
    kept, trouble = read_measurements(path)
    assert trouble is None
    assert "gloo" in [each.key.backend for each in kept], said
    for each in kept:
        assert (each.key.ranks, each.key.nodes, each.key.ranks_per_node) == (2, 2, 1)
        assert each.key.host == "test"
        assert each.key.partition == "debug"
