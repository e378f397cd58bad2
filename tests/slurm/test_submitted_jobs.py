"""matsci-hpc on this cluster: data prepared by MPI over two nodes, and training on ranks of both."""

import json
import sys

import pytest
from launching import LoginNode, steps_logged


@pytest.fixture(scope="module")
def data(cluster, tmp_path_factory):
    """A data set that two ranks of two nodes made through sbatch, and the log of that."""
    node = LoginNode(cluster, tmp_path_factory.mktemp("data"))
    (job,) = node.submit(node.prep_config(), "--nodes", 2, "--ranks", 2)
    assert cluster.wait_for(job, "COMPLETED", timeout_s=300)["NumNodes"] == "2"
    return node.folder / "datasets/clouds", cluster.log(job)


def test_preparation_over_two_nodes(data, cluster, tmp_path):
    folder, log = data
    assert json.loads((folder / "dataset.json").read_text())["counts"]["samples"] == 240
    assert "by 2 ranks" in log
    alone = LoginNode(cluster, tmp_path)
    alone.run("prep", alone.prep_config())
    for path in sorted(folder.iterdir()):
        if path.name != "provenance.json":
            assert path.read_bytes() == (tmp_path / "datasets/clouds" / path.name).read_bytes(), path.name


def test_training_of_two_nodes_with_two_ranks_each(cluster, data, tmp_path):
    node = LoginNode(cluster, tmp_path, launcher="srun")
    (job,) = node.submit(node.train_config(data[0]), "--nodes", 2, "--ranks", 4)
    cluster.wait_for(job, "COMPLETED", timeout_s=300)
    assert (tmp_path / "runs/run/DONE").exists()
    assert steps_logged(tmp_path / "runs/run")[-1]["ranks"] == 4


# Component 0 is on n2, the second node by name: rank 0 is not on the first node of the step's list.
MIXED = """\
#SBATCH --partition=gpu --nodes=1 --ntasks-per-node=2 --gpus-per-node=2
#SBATCH hetjob
#SBATCH --partition=cpu --nodes=1 --ntasks-per-node=1
cd {folder}
{master}
srun {command}
"""


@pytest.mark.parametrize("starts", ["by colon", "by groups"])
@pytest.mark.parametrize("master", ["", "export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))"])
def test_ranks_of_unequal_nodes_by_a_script_of_ones_own(starts, master, cluster, data, tmp_path):
    config = LoginNode(cluster, tmp_path).train_config(data[0])
    program = f"{sys.executable} -m matsci_hpc train {config}"
    command = {
        "by colon": f"--het-group=0 {program} : --het-group=1 {program}",
        "by groups": f"--het-group=0,1 {program}",
    }[starts]
    script = MIXED.format(folder=tmp_path, master=master, command=command)
    job = cluster.sbatch(script, f"--output={tmp_path}/%j.out")
    cluster.wait_for(job, "COMPLETED", timeout_s=300)
    assert (tmp_path / "runs/run/DONE").exists()
    assert steps_logged(tmp_path / "runs/run")[-1]["ranks"] == 3
