import os
import subprocess

import pytest

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.preflight.scheduler import scheduler_findings, what_slurm_says


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.usefixtures("nowhere")
def test_no_scheduler_here(job, site):
    (finding,) = scheduler_findings(job(), site())
    assert finding.level == "note"
    assert "no sbatch on PATH" in finding.text


@pytest.mark.usefixtures("nowhere")
def test_a_job_that_no_script_can_hold(job, site, tmp_path):
    with pytest.raises(UserInputError, match="line break"):
        list(scheduler_findings(job(name="a\nb"), site()))
    assert tmp_path


def test_ranks_here(job, site):
    (finding,) = scheduler_findings(job(ranks_per_node=1), site(scheduler="local"))
    assert finding.level == "ok"
    with pytest.raises(MachineError, match="nosuchrun is neither beside"):
        list(scheduler_findings(job(), site(scheduler="local", launcher="nosuchrun")))


def test_a_cluster_that_does_not_answer(job, site, tmp_path, monkeypatch):
    """The real programs, if there are any, with a configuration that leads nowhere."""
    if subprocess.run(["bash", "-c", "command -v sbatch scontrol"], capture_output=True, check=False).returncode:
        pytest.skip("no Slurm is installed here")
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=nowhere\nSlurmctldHost=nowhere(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=2\n"
        f"AuthType=auth/munge\nAuthInfo=socket={tmp_path}/none\nNodeName=n1\nPartitionName=p Nodes=n1\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    (finding,) = scheduler_findings(job(), site())
    assert finding.level == "note"
    assert "does not answer" in finding.text
    assert os.environ["SLURM_CONF"]


def test_words_of_slurm():
    answer = "sbatch: error: Batch job submission failed: X\nallocation failure: Y\n\n"
    assert what_slurm_says(answer) == "Batch job submission failed: X; allocation failure: Y"
    assert what_slurm_says("") == "nothing"
