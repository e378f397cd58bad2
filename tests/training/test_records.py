"""What a run records of itself, over several lives."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from ranks import mpirun, run_command, run_ranks
from sink_logs import read_mlflow, read_tensorboard, read_wandb

from matsci_hpc.analysis.records import read_lines, read_run, valid_steps
from matsci_hpc.telemetry.rank_lines import BYTES_PER_RANK

pytestmark = pytest.mark.mpi

# Rank 1 works longer in every step than it has to.
SLOW_RANK = """\
import os, time
from matsci_hpc import cli
from matsci_hpc.training import step
original = step.local_losses
def slow(*arguments):
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        time.sleep(0.1)
    return original(*arguments)
step.local_losses = slow
cli.main()
"""

# Rank 0 takes long over its records.
SLOW_RECORDS = """\
import time
from matsci_hpc import cli
from matsci_hpc.training import dynamics_records
def slowed(original):
    def slow(self, *arguments, **options):
        if self._lines is not None:
            time.sleep(0.3)
        return original(self, *arguments, **options)
    return slow
for name in ("before_move", "after_move"):
    kind = dynamics_records.DynamicsRecords
    setattr(kind, name, slowed(getattr(kind, name)))
cli.main()
"""


def test_a_metrics_line_adds_up_and_ranks_jsonl_is_its_breakdown(whole, lines):
    run = whole(2)
    metrics, ranks = lines(run), lines(run, "ranks")
    assert [line["step"] for line in ranks] == list(range(1, 21))
    for line, each in zip(metrics, ranks, strict=True):
        parts = ("data", "forward", "backward", "comm", "optimizer", "other")
        assert sum(line[f"{part}_time_s"] for part in parts) == pytest.approx(line["step_time_mean_s"])
        assert line["compute_time_s"] == pytest.approx(line["forward_time_s"] + line["backward_time_s"])
        assert line["forward_time_s"] > 0
        assert line["backward_time_s"] > 0
        for what in ("graphs", "atoms", "edges"):
            assert sum(each[what]) == line[what]
        assert max(each["step_time_s"]) == pytest.approx(line["step_time_s"], rel=1e-3)
        assert sum(each["forward_time_s"]) / 2 == pytest.approx(line["forward_time_s"], rel=1e-3)
        assert max(each["memory_bytes"]) == line["memory_bytes"]
        cost = each["predicted_cost"]
        assert max(cost) / (sum(cost) / 2) == pytest.approx(line["cost_imbalance"], rel=1e-3)
        assert line["straggler_count"] == len(line["stragglers"])
    about = json.loads((run / "provenance.json").read_text())
    assert list(about["hosts"].values()) == ["0-1"]
    assert list(about["energy"]) == ["cpu", "gpu"]
    assert min(about["energy"]["cpu"].values())[0] == "0"  # read or not, for a reason


def test_a_slow_rank_is_named_in_the_line_in_the_log_and_in_the_report(config, tmp_path, lines):
    run, program = tmp_path / "run", tmp_path / "slow.py"
    program.write_text(SLOW_RANK)
    result = run_command(mpirun(3, sys.executable, program, "train", config, f"run_dir={run}", "steps=8"))
    assert result.returncode == 0, result.stderr
    for line in lines(run)[1:]:  # the first step of a life warms up
        (rank,) = [each for each in line["stragglers"] if each["rank"] == 1]
        assert rank["reason"] == "node"
        assert rank["ratio"] > 1.2
    assert lines(run)[-1]["stragglers"][0]["intervals"] >= 7
    (said,) = [text for text in result.stdout.splitlines() if text.startswith("straggler: rank 1 on ")]
    assert "slower node" in said
    assert run_ranks(1, "report", run).returncode == 0
    assert "Ranks that kept the others waiting" in (run / "report.html").read_text()
    assert "rank 1 on" in run_ranks(1, "watch", run, "--once").stdout


def test_rank_0_is_no_straggler_for_what_it_records(config, tmp_path, lines):
    run, program = tmp_path / "run", tmp_path / "slow.py"
    program.write_text(SLOW_RECORDS)
    words = [program, "train", config, f"run_dir={run}", "steps=6", "records.straggler_ratio=15"]
    result = run_command(mpirun(2, sys.executable, *words))
    assert result.returncode == 0, result.stderr
    for line in lines(run)[1:]:
        assert line["stragglers"] == []
        assert line["other_time_s"] > 0.2


def test_records_and_sinks_go_on_after_a_kill_without_repeating_a_step(train_in, config, tmp_path, monkeypatch):
    for name in ("tensorboard", "mlflow", "wandb"):
        pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "run"
    sinks = "records.sinks=[tensorboard,mlflow,wandb]"
    # Lines of ranks.jsonl of four steps each, off the grid of the checkpoints.
    bound = f"records.ranks_mb={(20 * 2 * BYTES_PER_RANK / 4) / 1e6}"
    train_in(run, 2, sinks, bound)
    (run / "DONE").unlink()
    for path in (run / "checkpoints").iterdir():  # as if killed at the end, with step 15 as its newest checkpoint
        if int(path.name.removeprefix("step-")) > 15:
            shutil.rmtree(path)
    result = run_ranks(2, "train", config, f"run_dir={run}", sinks, bound)
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr

    metrics = {line["step"]: line for line in read_run(run).steps}
    assert list(metrics) == list(range(1, 21))
    ranks = valid_steps(read_lines(run / "ranks.jsonl")[0])
    assert [(line["first_step"], line["step"], line["life"]) for line in ranks] == [
        *((first, first + 3, 0) for first in (1, 5, 9)),
        (16, 16, 1),  # the line 13 to 16 of the first life is taken back with step 16
        (17, 20, 1),
    ]
    loss = {step: line["loss"] for step, line in metrics.items()}
    for name, read in (("tensorboard", read_tensorboard), ("mlflow", read_mlflow), ("wandb", read_wandb)):
        found = read(Path(run) / name)
        assert Counter(step for step, _ in found["train/loss"]) == Counter(range(1, 21)), name
        assert dict(found["train/loss"]) == pytest.approx(loss, rel=1e-6), name
        assert [step for step, _ in found["val/gap/mae"]] == [8, 16, 20], name


@pytest.mark.slow
def test_other_logs_follow_a_run_that_goes_on_with_another_learning_rate(train_in, config, tmp_path, monkeypatch):
    for name in ("tensorboard", "mlflow", "wandb"):
        pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "run"
    sinks = "records.sinks=[tensorboard,mlflow,wandb]"
    train_in(run, 1, sinks)
    (run / "DONE").unlink()
    for path in (run / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > 15:
            shutil.rmtree(path)
    result = run_ranks(1, "train", config, f"run_dir={run}", sinks, "optimizer.lr=1e-4")
    assert result.returncode == 0, result.stderr
    steps = read_run(run).steps
    for name, read in (("tensorboard", read_tensorboard), ("mlflow", read_mlflow), ("wandb", read_wandb)):
        found = read(Path(run) / name)
        for key in ("loss", "lr"):
            assert dict(found[f"train/{key}"]) == pytest.approx({line["step"]: line[key] for line in steps}, rel=1e-6)


def test_a_sink_that_fails_does_not_end_a_run(config, tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    assert run_ranks(1, "train", config, f"run_dir={run}", "max_time_s=0.001").returncode == 0
    (run / "tensorboard").write_text("in the way")
    result = run_ranks(1, "train", config, f"run_dir={run}", "steps=6", "records.sinks=[tensorboard]")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("records.sinks: tensorboard") == 1
    assert (run / "DONE").exists()


def test_the_record_of_every_rank_can_be_left_out(train):
    run = train("run", 1, "steps=3", "records.ranks_mb=0")
    assert not (run / "ranks.jsonl").exists()


def test_an_unknown_sink_is_refused_with_the_known_ones(config, tmp_path):
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", "records.sinks=[tensorbord]")
    assert result.returncode == 2
    assert "tensorboard" in result.stderr
