"""What is saved, what a stop leaves, and that a resumed run is the uninterrupted one."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ranks import command, environment, mpirun, run_command, run_ranks
from safetensors.torch import load_file

pytestmark = pytest.mark.mpi


def model_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def assert_equal_models(one: Path, other: Path, step: int = 20) -> None:
    for name, value in model_of(one, step).items():
        assert torch.equal(model_of(other, step)[name], value), name


def last_lines(lines, run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(run)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_resumed_run_equals_the_uninterrupted_one(whole, train, lines, ranks):
    parts = train("parts", ranks, "max_time_s=0.0001")  # one step, then a stop
    assert not (parts / "DONE").exists()
    assert lines(parts)[-1]["step"] == 1
    train("parts", ranks)
    assert (parts / "DONE").exists()
    assert {line["life"] for line in lines(parts)} == {0, 1}
    assert last_lines(lines, parts) == last_lines(lines, whole(ranks))
    assert_equal_models(whole(ranks), parts)


def test_resume_on_another_number_of_ranks_sees_the_same_samples(whole, train, lines):
    parts = train("parts", 3, "max_time_s=0.0001")
    train("parts", 1)
    assert [line["samples_seen"] for line in lines(parts)] == [line["samples_seen"] for line in lines(whole(2))]
    assert last_lines(lines, parts) == pytest.approx(last_lines(lines, whole(2)), rel=1e-6)


def test_a_killed_run_goes_on_from_its_checkpoint(whole, copy_of_whole, config):
    killed = copy_of_whole(2)
    (killed / "DONE").unlink()
    for path in (killed / "checkpoints").iterdir():  # as if killed after step 10, in the midst of saving
        if int(path.name.removeprefix("step-")) > 10:
            shutil.rmtree(path)
    (killed / "checkpoints" / ".step-000015.part").mkdir()
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')
    result = run_ranks(2, "train", config, f"run_dir={killed}")
    assert result.returncode == 0, result.stderr
    assert "resuming at step 10" in result.stdout
    assert_equal_models(whole(2), killed)


def test_damaged_checkpoint_falls_back_and_says_so(whole, copy_of_whole, config):
    damaged = copy_of_whole(1)
    (damaged / "DONE").unlink()
    newest, before = sorted((damaged / "checkpoints").iterdir(), reverse=True)[:2]
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    result = run_ranks(1, "train", config, f"run_dir={damaged}")
    assert result.returncode == 0, result.stderr
    assert "checksum differs" in result.stderr
    assert f"resuming at step {int(before.name.removeprefix('step-'))}" in result.stdout
    assert_equal_models(whole(1), damaged)


@pytest.mark.parametrize("how", ["STOP", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT"])
def test_stop_requests_save_on_all_ranks_and_exit_0(config, tmp_path, how):
    run = tmp_path / "stopped"
    arguments = ["train", config, f"run_dir={run}", "steps=100000", "evaluate.every_steps=1000000"]
    # SIGTERM and SIGINT go to a rank alone: mpirun itself would kill its ranks a moment later.
    process = subprocess.Popen(
        command(1 if how in {"SIGTERM", "SIGINT"} else 2, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(run / "metrics.jsonl")
        if how == "STOP":
            (run / "STOP").touch()
        else:
            process.send_signal(getattr(signal, how))
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "stopped at step" in output
    assert not (run / "DONE").exists()
    stopped_at = int(output.rpartition("stopped at step ")[2].split()[0].replace(",", ""))
    assert (run / "checkpoints" / f"step-{stopped_at:06d}").is_dir()
    # mpirun hands a signal to one rank after the other, and rank 0 may learn of it from another rank first.
    why = {"by hand"} if how == "STOP" else {f"signal {how}", "another rank was asked to"}
    assert (run / "STOPPED").read_text() in {f"{each}\n" for each in why}
    assert not (run / "STOP").exists()


def test_a_signal_during_the_start_is_not_lost(config, tmp_path):
    arguments = ["train", config, f"run_dir={tmp_path / 'early'}", "steps=100000"]
    process = subprocess.Popen(command(1, *arguments), env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1.0)  # Python is up, torch is still being imported
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "stopped at step 1 (signal SIGUSR1)" in output


def test_finished_run_is_left_alone(copy_of_whole, train_in):
    run = copy_of_whole(1)

    def content():
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}

    before = content()
    train_in(run, 1)
    assert content() == before


def test_a_second_job_in_the_same_folder_is_refused(config, tmp_path):
    run = tmp_path / "busy"
    arguments = ["train", config, f"run_dir={run}", "steps=100000", "evaluate.every_steps=1000000"]
    process = subprocess.Popen(command(1, *arguments), env=environment(), stdout=subprocess.DEVNULL)
    try:
        wait_for(run / "metrics.jsonl")
        second = run_ranks(1, *arguments)
        assert second.returncode == 2
        assert f"process {process.pid} on " in second.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    # The lock of a killed process does not outlive it.
    assert run_ranks(1, *arguments, "max_time_s=0.001").returncode == 0


def test_what_changed_between_lives_is_said_and_recorded(copy_of_whole, config):
    run = copy_of_whole(1)
    result = run_ranks(1, "train", config, f"run_dir={run}", "steps=22", "optimizer.lr=0.001")
    assert result.returncode == 0, result.stderr
    assert "going on with another optimizer.lr: 0.003 -> 0.001" in result.stdout
    record = json.loads((run / "provenance.json").read_text())
    assert record["changes"] == ["optimizer.lr: 0.003 -> 0.001", "steps: 20 -> 22"]


def test_nothing_held_out_trains_without_evaluation(train, config, tmp_path):
    run = train("run", 2, "data.held_out=null", "steps=3")
    assert (run / "DONE").exists()
    assert not (run / "evaluations.jsonl").exists()
    assert run_ranks(1, "report", run).returncode == 0
    refused = run_ranks(1, "train", config, f"run_dir={tmp_path / 'same'}", "data.held_out=train")
    assert refused.returncode == 2
    assert "'train' is trained on" in refused.stderr


def test_ranks_of_different_rounding_start_from_the_same_parameters(config, tmp_path):
    """Rank 1 is made to draw other first parameters, as another processor might; the run must not notice."""
    program = tmp_path / "drift.py"
    program.write_text(
        "import os, sys\nimport torch\nfrom matsci_hpc.training import setup\n"
        "original = setup.build_model\n"
        "def drifted(*arguments):\n    model = original(*arguments)\n"
        "    if os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n"
        "        with torch.no_grad():\n            [p.mul_(1.001) for p in model.parameters()]\n    return model\n"
        "setup.build_model = drifted\nfrom matsci_hpc.cli import main\nmain()\n"
    )
    plain = run_ranks(2, "train", config, f"run_dir={tmp_path / 'plain'}", "steps=3")
    assert plain.returncode == 0, plain.stderr
    drifted = run_command(
        mpirun(2, sys.executable, program, "train", config, f"run_dir={tmp_path / 'drifted'}", "steps=3")
    )
    assert drifted.returncode == 0, drifted.stderr
    assert_equal_models(tmp_path / "plain", tmp_path / "drifted", step=3)


def test_a_finished_run_that_is_given_more_steps_goes_on(copy_of_whole, train_in, lines):
    run = train_in(copy_of_whole(2), 2, "steps=23")
    assert [line["step"] for line in lines(run)] == list(range(1, 24))
    assert json.loads((run / "DONE").read_text())["step"] == 23


def test_a_config_that_failed_before_the_first_step_can_be_mended(config, train, tmp_path):
    wrong = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", "targets={gab: {}}")
    assert wrong.returncode == 2
    assert "targets.gab" in wrong.stderr
    run = train("run", 1, "targets={gap: {}}", "steps=2")
    assert (run / "DONE").exists()


@pytest.mark.parametrize("override", [f"seed={2**64}", "optimizer.betas=[1.5, 0.9]"])
def test_numbers_that_torch_would_refuse_are_refused_with_their_key(config, tmp_path, override):
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", override)
    assert result.returncode == 2
    assert override.partition("=")[0] in result.stderr


def test_checkpoints_kept_are_the_newest_and_the_best(train, lines):
    run = train("run", 1, "checkpoint.keep=2", "checkpoint.every_steps=2", "evaluate.every_steps=4")
    kept = {int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir()}
    best = min(lines(run, "evaluations"), key=lambda line: line["loss"])["step"]
    assert kept == {18, 20, best}


@pytest.mark.parametrize(
    ("override", "named"),
    [("seed=8", "seed"), ("batch.graphs=9", "batch"), ("model.layers=3", "model"), ("precision=float32", "precision")],
)
def test_resuming_with_another_meaning_is_refused(copy_of_whole, config, override, named):
    run = copy_of_whole(1)
    (run / "DONE").unlink()
    result = run_ranks(1, "train", config, f"run_dir={run}", override)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert repr(named) in result.stderr


def test_diverged_training_stops_with_advice(config, tmp_path):
    arguments = ["optimizer.lr=1e30", "precision=float32", "schedule.warmup_steps=0", "optimizer.clip_norm=null"]
    result = run_ranks(2, "train", config, f"run_dir={tmp_path / 'diverged'}", *arguments)
    assert result.returncode == 2
    assert "not finite" in result.stderr
    assert result.stderr.count("matsci-hpc: error") == 1


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_what_decides_nothing_may_change_between_lives(copy_of_whole, config):
    run = copy_of_whole(1)
    result = run_ranks(1, "train", config, f"run_dir={run}", "steps=22", "batch.micro_batches=2")
    assert result.returncode == 0, result.stderr
    assert "going on with another batch.micro_batches: 1 -> 2" in result.stdout


def test_fewer_steps_than_taken_are_refused_in_one_line(copy_of_whole, config):
    run = copy_of_whole(1)
    (run / "DONE").unlink()
    result = run_ranks(1, "train", config, f"run_dir={run}", "steps=10")
    assert result.returncode == 2
    assert "has taken 20: set steps to 20" in result.stderr
    assert result.stderr.count("\n") == 1
