"""Preparation, pretraining, fine-tuning and report as one chain of jobs, and what becomes of it when a link breaks."""

import json
import time

import pytest
from cluster import OVER
from launching import LoginNode, steps_logged, wait_for_steps, wait_until, write_config

FOR_EVER = 1_000_000


@pytest.fixture
def node(cluster, tmp_path):
    return LoginNode(cluster, tmp_path)


def wait_until_ended(node, jobs, timeout_s=400):
    """Wait until every part of these jobs is over, and give what `matsci-hpc jobs` says of each."""
    wait_until(
        lambda: all(part["JobState"] in OVER for job in jobs for part in node.cluster.jobs(job)),
        f"jobs {jobs} are over",
        timeout_s,
    )
    return node.standings()


def assert_completes(node, job):
    """Wait until a job is over; where it has not done its work, its log tells why."""
    standing = wait_until_ended(node, [job])[job]
    assert standing["state"] == "complete", f"{standing}\n{node.cluster.job(job)}\n{node.cluster.log(job)}"


def test_from_clouds_to_the_report_of_a_fine_tuned_run(node, cluster):
    prep = node.prep_config()
    other = node.prep_config("others", source={"kind": "symmetry", "samples": 120, "seed": 6})
    pretrain = node.train_config("datasets/clouds", "pretrain")
    finetune = node.train_config("datasets/others", "finetune", init_from="runs/pretrain")
    # Given in any order: what reads comes after what writes.
    said = node.run(
        *("submit", finetune, pretrain, prep, other, "--site", node.site, "--nodes", 2, "--ranks", 4, "--report")
    )
    jobs = [line.split()[1].rstrip(":") for line in said.splitlines() if line.startswith("job ")]
    assert len(jobs) == 6
    standings = wait_until_ended(node, jobs)
    assert {standings[job]["state"] for job in jobs} == {"complete"}, standings
    assert cluster.job(jobs[2])["NumNodes"] == "2"
    for run in ("pretrain", "finetune"):
        assert steps_logged(node.folder / f"runs/{run}")[-1]["ranks"] == 4
        assert (node.folder / f"runs/{run}/report.html").stat().st_size > 1e6
    provenance = json.loads((node.folder / "runs/finetune/provenance.json").read_text())
    assert provenance["init_from"]["path"].endswith("runs/pretrain/checkpoints/step-000012")
    starts = [cluster.job(job)["StartTime"] for job in jobs]
    ends = [cluster.job(job)["EndTime"] for job in jobs]
    assert ends[0] <= starts[2]  # ISO times compare as text
    assert ends[2] <= starts[3]


def test_what_can_never_run_is_cleaned_up(node, cluster):
    (node.folder / "empty").mkdir()
    prep = node.prep_config(source={"kind": "cif", "path": str(node.folder / "empty")})
    train = node.train_config("datasets/clouds")
    jobs = node.submit(prep, train, "--nodes", 2, "--report", "--no-check")
    standings = wait_until_ended(node, jobs)
    assert standings[jobs[0]]["state"] == "failed: exit code 2; submit again to go on"
    assert [cluster.job(job)["JobState"] for job in jobs[1:]] == ["CANCELLED", "CANCELLED"]
    assert "holds no .cif file" in cluster.log(jobs[0])


def test_a_run_stopped_by_hand_starts_nothing_that_needs_it(node, cluster):
    node.run("prep", node.prep_config())
    pretrain = node.train_config("datasets/clouds", "pretrain", steps=FOR_EVER)
    finetune = node.train_config("datasets/clouds", "finetune", init_from="runs/pretrain")
    first, second = node.submit(pretrain, finetune, "--nodes", 2)
    wait_for_steps(cluster, first, node.folder / "runs/pretrain", 3)
    (node.folder / "runs/pretrain/STOP").touch()
    standings = wait_until_ended(node, [first, second])
    assert standings[first]["state"] == "stopped: by hand; submit again to go on"
    assert cluster.job(second)["JobState"] == "CANCELLED"
    assert not (node.folder / "runs/finetune/metrics.jsonl").exists()


def test_an_array_of_runs(node, cluster):
    node.run("prep", node.prep_config())
    config = node.train_config("datasets/clouds")
    (job,) = node.submit(config, "--array", "seed=1,2", "--ranks", 1)
    standings = wait_until_ended(node, [job])
    assert {standings[f"{job}_{i}"]["state"] for i in (0, 1)} == {"complete"}
    losses = [steps_logged(node.folder / f"runs/run/seed={seed}")[-1]["loss"] for seed in (1, 2)]
    assert losses[0] != losses[1]
    assert (node.folder / f"runs/run/slurm-{job}_1.out").exists()
    assert cluster.jobs(job)[0]["ArrayJobId"] == job


def test_runs_of_an_array_go_on_each_by_itself(node):
    node.run("prep", node.prep_config())
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"signal_before_end_s": 15}))
    # The last run has the number of the whole array: its requeue must not take the others along.
    steps = f"steps=5,{FOR_EVER},{FOR_EVER + 1}"
    (job,) = node.submit(node.train_config("datasets/clouds"), "--array", steps, "--ranks", 1, "--time", "00:01:00")
    runs = [node.folder / f"runs/run/{each}" for each in ("steps=5", f"steps={FOR_EVER}", f"steps={FOR_EVER + 1}")]
    logs = [node.folder / f"runs/run/slurm-{job}_{number}.out" for number in (0, 1, 2)]
    for log in logs[1:]:
        wait_until(lambda log=log: "life 2 of" in log.read_text() if log.exists() else False, "a second life")
    for run in runs[1:]:
        (run / "STOP").touch()
    standings = wait_until_ended(node, [f"{job}_{number}" for number in (0, 1, 2)])
    assert standings[f"{job}_0"]["state"] == "complete"
    assert "life 2" not in logs[0].read_text()
    for log in logs[1:]:
        lines = log.read_text().splitlines()
        lives = sum(line.startswith("life ") for line in lines)
        assert sum("the next life goes on from there" in line for line in lines) == lives - 1


def test_a_mixed_job_of_gpu_and_cpu_nodes(node, cluster):
    node.run("prep", node.prep_config())
    kinds = {
        "gpu": {"partition": "gpu", "gpus_per_rank": 1, "ranks_per_node": 2, "speed": 3},
        "cpu": {"partition": "cpu", "ranks_per_node": 1},
    }
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"node_kinds": kinds}))
    config = node.train_config("datasets/clouds", record_samples=True, batch={"graphs": 48})
    (job,) = node.submit(config, "--nodes", "gpu=1,cpu=1")
    assert_completes(node, job)
    assert steps_logged(node.folder / "runs/run")[-1]["ranks"] == 3
    shares = [
        sum(len(json.loads(line)["samples"]) for line in path.read_text().splitlines())
        for path in sorted((node.folder / "runs/run/samples").glob("rank-*.jsonl"))
    ]
    assert min(shares[:2]) > 1.5 * shares[2]  # ranks on the faster nodes get more
    gpu, cpu = cluster.jobs(job)
    assert gpu["TresPerNode"] == "gres:gpu:2"
    assert "TresPerNode" not in cpu
    environment = next((node.folder / "runs/run").glob(f"job-{job}-1.env")).read_text()
    assert "SLURM_JOB_NUM_NODES" in environment


def test_a_mixed_job_goes_on_after_its_time_limit(node, cluster):
    node.run("prep", node.prep_config())
    kinds = {"gpu": {"partition": "gpu", "ranks_per_node": 1}, "cpu": {"partition": "cpu", "ranks_per_node": 1}}
    site = {"node_kinds": kinds, "signal_before_end_s": 15}
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | site))
    config = node.train_config("datasets/clouds", steps=FOR_EVER)
    (job,) = node.submit(config, "--nodes", "gpu=1,cpu=1", "--time", "00:01:00")
    run = node.folder / "runs/run"
    wait_until(lambda: "goes on from there" in cluster.log(job), "its first life is over")
    steps = steps_logged(run)[-1]["step"] + 20
    write_config(config, json.loads(config.read_text()) | {"steps": steps})
    assert_completes(node, job)
    assert int(cluster.job(job)["Restarts"]) >= 1
    assert [line["step"] for line in steps_logged(run)] == list(range(1, steps + 1))


def test_an_impossible_request_is_told_before_it_waits(node):
    node.run("prep", node.prep_config())
    done = node.start("submit", node.train_config("datasets/clouds"), "--site", node.site, "--nodes", 3)
    assert done.returncode == 2
    assert done.stderr == (
        "matsci-hpc: error: scheduler: Slurm refuses the job: allocation failure: Requested node configuration is not "
        "available; `sinfo` shows what there is\n"
    )
    assert node.standings() == {}


def test_hostile_names_reach_the_ranks_as_names(node):
    name = "run $(touch pwned) 'x' \"y\"; touch pwned # %j é"
    node.run("prep", node.prep_config())
    config = node.train_config("datasets/clouds", "run", run_dir=f"runs/{name}")
    (job,) = node.submit(config, "--nodes", 2)
    assert_completes(node, job)
    assert (node.folder / "runs" / name / "DONE").exists()
    assert (node.folder / "runs" / name / f"slurm-{job}.out").exists()
    assert not list(node.folder.rglob("pwned*"))


def test_jobs_asks_once_in_half_a_minute(node, cluster):
    node.run("prep", node.prep_config())
    blocker = cluster.sbatch("sleep 300", "--nodes=2", "--exclusive")
    cluster.wait_for(blocker, "RUNNING")
    (job,) = node.submit(node.train_config("datasets/clouds"), "--nodes", 2)
    assert "waiting" in node.run("jobs")
    cluster.run("scancel", blocker, job)
    cluster.wait_for(job, "CANCELLED")
    time.sleep(1)
    assert "s ago" in node.run("jobs")  # the kept answer
    assert node.standings()[job]["state"] == "cancelled"
