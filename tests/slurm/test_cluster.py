"""That the cluster is one: what the other tests here take for granted."""

import pytest
from cluster import Cluster, ClusterError


def test_two_nodes_with_things_of_their_own(cluster):
    own = f"hostname > {cluster.node_local}/name; sleep 0.2; cat {cluster.node_local}/name; ls /dev/shm | wc -l"
    printed = cluster.run("srun", "-N2", "--ntasks-per-node=1", "bash", "-c", own)
    assert sorted(printed.split()) == ["0", "0", "n1", "n2"]


def test_a_batch_job_runs_to_its_end(cluster):
    job = cluster.sbatch("srun hostname", "-N2")
    assert cluster.wait_for(job, "COMPLETED")["ExitCode"] == "0:0"
    assert sorted(cluster.log(job).split()) == ["n1", "n2"]


def test_a_failed_job_is_told_with_its_log(cluster):
    job = cluster.sbatch("echo the reason; exit 7")
    with pytest.raises(ClusterError, match=r"is FAILED \(NonZeroExitCode\), not COMPLETED(?s:.)*the reason"):
        cluster.wait_for(job, "COMPLETED")


def test_gpus_are_on_one_node_and_run_out(cluster):
    job = cluster.sbatch("hostname; echo $CUDA_VISIBLE_DEVICES", "--gpus=2")
    cluster.wait_for(job, "COMPLETED")
    assert cluster.log(job).split() == ["n2", "0,1"]
    refused = cluster.start("sbatch", "--gpus-per-node=3", "--wrap=true")
    assert refused.returncode != 0
    assert "Requested node configuration is not available" in refused.stderr


LIVES = "echo life ${SLURM_RESTART_COUNT:-0}; "


def test_a_requeued_job_keeps_its_log(cluster):
    script = LIVES + "if [ -z ${SLURM_RESTART_COUNT:-} ]; then scontrol requeue $SLURM_JOB_ID; sleep 60; fi"
    job = cluster.sbatch(script)
    assert cluster.wait_for(job, "COMPLETED")["Restarts"] == "1"
    log = cluster.log(job)
    assert log.index("life 0") < log.index("DUE TO JOB REQUEUE") < log.index("life 1")


def test_a_job_outlives_its_node(cluster, tmp_path):
    script = LIVES + f"[ ${{SLURM_RESTART_COUNT:-0}} = 1 ] || while touch {tmp_path}/alive; do sleep 0.1; done"
    job = cluster.sbatch(script, "-w", "n2")
    cluster.wait_for_line(job, "life 0")
    cluster.power_off("n2")
    (tmp_path / "alive").unlink(missing_ok=True)
    cluster.node_down("n2")
    assert cluster.wait_for(job, "PENDING")["Restarts"] == "1"
    cluster.power_on("n2")
    cluster.node_resume("n2")
    cluster.wait_for(job, "COMPLETED")
    assert not (tmp_path / "alive").exists(), "a process outlived its node"
    assert "life 1" in cluster.log(job)


def test_a_job_runs_on_without_a_controller(cluster, tmp_path):
    script = f"{LIVES} until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo end"
    job = cluster.sbatch(script)
    cluster.wait_for_line(job, "life 0")
    cluster.restart_controller()
    assert cluster.job(job)["JobState"] == "RUNNING"
    (tmp_path / "go").touch()
    assert cluster.wait_for(job, "COMPLETED")["Restarts"] == "0"
    assert cluster.log(job).split() == ["life", "0", "end"]


def test_a_cluster_that_does_not_boot_says_why(tmp_path):
    base = tmp_path / ("a path that is too long for a socket " * 3)
    base.mkdir()
    other = Cluster(base)
    try:
        with pytest.raises(ClusterError, match=r"munged ended(?s:.)*--- munged"):
            other.boot()
    finally:
        other.shut_down()
