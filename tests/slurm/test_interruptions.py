"""A run goes through everything that can end a job, and computes what it would have computed undisturbed."""

import json
import os
import shlex
import signal
from collections import Counter
from pathlib import Path

import pytest
from launching import LoginNode, steps_logged, wait_for_restarts, wait_for_steps, wait_until, write_config
from safetensors.numpy import load_file
from soak import seen_by_epoch

FOR_EVER = 1_000_000


@pytest.fixture(scope="module")
def data(cluster, tmp_path_factory):
    """Clouds that this machine prepared by itself."""
    node = LoginNode(cluster, tmp_path_factory.mktemp("data"))
    node.run("prep", node.prep_config())
    return node.folder / "datasets/clouds"


@pytest.fixture
def node(cluster, tmp_path):
    # A life of a minute is short: the fewer ranks import torch at once, the more of it is left for training.
    return LoginNode(cluster, tmp_path, ranks_per_node=1, signal_before_end_s=15)


def end_soon(config, run, more=30):
    """Let the next life be the last one: it reads the config anew.

    Only while no life is taking steps: one that read the old config would go on beyond the new end.
    """
    steps = max((line["step"] for line in steps_logged(run)), default=0) + more
    write_config(config, json.loads(config.read_text()) | {"steps": steps})


def start_run(node, data, *options, **changes):
    """Submit a run that would go on for ever, on a rank of each node, and wait for its first steps."""
    config = node.train_config(data, steps=FOR_EVER, record_samples=True, **changes)
    (job,) = node.submit(config, "--nodes", 2, *options)
    run = node.folder / "runs/run"
    wait_for_steps(node.cluster, job, run, 5)
    return config, job, run


def lives_of(run):
    return json.loads((run / "provenance.json").read_text())["life"] + 1


def assert_equals_undisturbed(node, config, run):
    """The same steps without any stop, on the same number of ranks of this machine: equal to the last bit."""
    node.run("submit", config, "run_dir=runs/undisturbed", "--site", "local", "--ranks", 2)
    steps = json.loads(config.read_text())["steps"]
    ours, theirs = (
        {line["step"]: line["loss"] for line in steps_logged(folder)} for folder in (run, run.with_name("undisturbed"))
    )
    assert set(ours) == set(theirs) == set(range(1, steps + 1))
    assert ours == theirs
    last = f"checkpoints/step-{steps:06d}"
    for file in ("model.safetensors", "optimizer.safetensors"):
        here, there = (load_file(folder / last / file) for folder in (run, run.with_name("undisturbed")))
        assert here.keys() == there.keys()
        assert all((here[key] == there[key]).all() for key in here)


def assert_each_sample_once(run):
    """In every whole epoch each sample of the split was learned from exactly once."""
    epochs = seen_by_epoch(run)
    whole = [epochs[number] for number in sorted(epochs)[:-1]]
    assert whole
    for epoch in whole:
        assert Counter(epoch.values()) == {1: len(whole[0])}


def test_a_time_limit_that_hits_three_times(node, data, cluster):
    config, job, run = start_run(node, data, "--time", "00:01:00")
    for life in (1, 2, 3):
        wait_for_restarts(cluster, job, life)
    end_soon(config, run)
    cluster.wait_for(job, "COMPLETED", timeout_s=240)
    log = cluster.log(job)
    assert log.count("the next life goes on from there") >= 3
    assert "DUE TO TIME LIMIT" not in log
    assert lives_of(run) >= 4
    assert node.standings()[job]["state"] == "complete"
    assert_each_sample_once(run)
    assert_equals_undisturbed(node, config, run)


def test_ranks_that_hang_at_the_time_limit_are_ended_and_the_run_goes_on(node, data, cluster):
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"signal_before_end_s": 40}))
    config, job, run = start_run(node, data, checkpoint={"every_steps": 5})
    wait_until(lambda: checkpoints(run), "there is a checkpoint")
    assert len(freeze(config)) == 2
    saved = checkpoints(run)[-1]
    # The signal comes with 40 to 70 s left.
    cluster.run("scontrol", "update", f"JobId={job}", "EndTime=now+70")
    wait_for_restarts(cluster, job, 1)
    end_soon(config, run)
    cluster.wait_for(job, "COMPLETED", timeout_s=240)
    log = cluster.log(job)
    assert log.count("ranks did not stop in time") == 1
    assert f"stopped at step {saved}; the next life goes on from there" in log
    assert f"resuming at step {saved}," in log
    assert "DUE TO TIME LIMIT" not in log
    assert not freeze(config)  # Slurm has killed the frozen ones
    # What the first life did beyond its checkpoint is done again.
    lasting = [line["step"] for line in steps_logged(run) if line["life"] == 1 or line["step"] <= saved]
    assert lasting == list(range(1, json.loads(config.read_text())["steps"] + 1))
    assert_equals_undisturbed(node, config, run)


def test_a_launcher_that_still_waits_for_its_step_at_the_time_limit_is_ended(node, data, cluster):
    # In the first life a line of the site holds all cores, so that Slurm has none for the ranks.
    setup = ['if [ "$life" = 1 ]; then srun sleep 1000 & sleep 3; fi']
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"setup": setup}))
    (job,) = node.submit(node.train_config(data), "--nodes", 2)
    run = node.folder / "runs/run"
    # Written just before. The launcher itself says nothing at first.
    wait_until((run / f"job-{job}-1.env").exists, "the launcher starts")
    cluster.run("scontrol", "update", f"JobId={job}", "EndTime=now+45")
    cluster.wait_for(job, "COMPLETED", timeout_s=240)
    log = cluster.log(job)
    assert log.count("ranks did not stop in time") == 1
    assert "stopped at the start; the next life goes on from there" in log
    assert node.standings()[job]["state"] == "complete"
    assert [line["step"] for line in steps_logged(run)] == list(range(1, 13))


def freeze(config):
    """Stop the ranks that train by this config, on all nodes, and give their numbers."""
    ranks = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if b"python" in words[0] and b"train" in words and os.fsencode(config) in words:
            ranks.append(int(path.parent.name))
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    return ranks


def test_a_cancelled_run_goes_on_where_it_was_saved(node, data, cluster):
    config, job, run = start_run(node, data)
    assert f"cancelled job {job}: train run" in node.run("cancel", "runs/run")
    cluster.wait_for(job, "CANCELLED")
    assert node.standings()[job]["state"] == "cancelled"
    wait_until(lambda: not cluster.run("squeue", "--noheader", "--states=all", "--steps"), "its ranks are gone")
    saved = checkpoints(run)
    assert saved  # KillWait is long enough for a small model
    end_soon(config, run)
    (again,) = node.submit(config, "--nodes", 2)
    cluster.wait_for(again, "COMPLETED")
    assert f"resuming at step {saved[-1]}," in cluster.log(again)
    assert_equals_undisturbed(node, config, run)


def test_a_lost_node_starts_the_run_anew_from_its_checkpoint(node, data, cluster):
    config, job, run = start_run(node, data, checkpoint={"every_steps": 5})
    wait_until(lambda: checkpoints(run), "there is a checkpoint")
    cluster.node_down("n2")
    try:
        cluster.wait_for(job, "PENDING")
        wait_until(lambda: not cluster.run("squeue", "--noheader", "--states=all", "--steps"), "its ranks are gone")
        end_soon(config, run)
        assert node.standings()[job]["phase"] == "waiting"
    finally:
        cluster.node_resume("n2")
    assert cluster.wait_for(job, "COMPLETED", timeout_s=240)["Restarts"] == "1"
    assert node.standings()[job]["life"] == 2
    assert_equals_undisturbed(node, config, run)


def test_a_restart_of_the_controller_disturbs_nothing(node, data, cluster):
    _, job, run = start_run(node, data)
    cluster.restart_controller()
    wait_for_steps(cluster, job, run, 5)
    (run / "STOP").touch()
    record = cluster.wait_for(job, "COMPLETED")
    assert record["Restarts"] == "0"
    assert node.standings()[job]["state"] == "stopped: by hand; submit again to go on"
    assert not (run / "STOP").exists()


def test_a_preempted_run_saves_and_goes_on(node, data, cluster):
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"partition": "low"}))
    config, job, run = start_run(node, data)
    done = node.folder / "urgent work is done"
    waiting = f"until [ -e {shlex.quote(str(done))} ]; do sleep 0.2; done"
    urgent = cluster.sbatch(waiting, "--partition=high", "--nodes=2", "--exclusive")
    cluster.wait_for(urgent, "RUNNING", timeout_s=240)
    end_soon(config, run)
    done.touch()
    cluster.wait_for(urgent, "COMPLETED")
    assert cluster.wait_for(job, "COMPLETED", timeout_s=240)["Restarts"] == "1"
    log = cluster.log(job)
    assert "resuming at step" in log
    assert "DUE TO PREEMPTION" in log or "DUE TO JOB REQUEUE" in log
    assert_each_sample_once(run)
    assert_equals_undisturbed(node, config, run)


def test_a_life_without_progress_is_given_up(node, data, cluster):
    # A site whose own lines take until the time is up: no rank ever takes a step.
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"setup": ["sleep 120 & wait || true"]}))
    (job,) = node.submit(node.train_config(data), "--nodes", 2, "--time", "00:01:00")
    record = cluster.wait_for(job, "FAILED", timeout_s=240)
    assert (record["ExitCode"], record["Restarts"]) == ("3:0", "0")
    assert "no new checkpoint in this life (newest step -1)" in cluster.log(job)
    assert str(node.standings()[job]["state"]).startswith("given up: no new checkpoint in this life")


def test_a_stop_by_hand_while_the_job_waits_is_not_lost(node, data, cluster):
    blocker = cluster.sbatch("sleep 300", "--nodes=2", "--exclusive")
    cluster.wait_for(blocker, "RUNNING")
    (job,) = node.submit(node.train_config(data), "--nodes", 2)
    assert node.standings()[job]["phase"] == "waiting"
    (node.folder / "runs/run/STOP").touch()
    cluster.run("scancel", blocker)
    cluster.wait_for(job, "COMPLETED")
    assert node.standings()[job]["state"] == "stopped: by hand, before this life began; submit again to go on"
    assert not (node.folder / "runs/run/metrics.jsonl").exists()


def checkpoints(run):
    """Steps that are saved, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
