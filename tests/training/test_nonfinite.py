"""A loss that is not finite: which rank it came from, what is left for looking into it, and going on without it."""

import json
import re
import shutil
import sys

import pytest
import torch
from ranks import mpirun, run_command
from safetensors.torch import load_file
from sink_logs import read_mlflow, read_wandb

from matsci_hpc.analysis.figures import charts
from matsci_hpc.analysis.records import read_run
from matsci_hpc.analysis.report import render
from matsci_hpc.config.train import Schedule
from matsci_hpc.telemetry.rank_lines import BYTES_PER_RANK
from matsci_hpc.training.optimization import learning_rate

pytestmark = pytest.mark.mpi
# In the steps listed, the targets of one rank's batch are not numbers.
WRAPPER = """\
import os
from matsci_hpc import cli
from matsci_hpc.training import step
original = step.Stepper._backward
def corrupted(self, work, **options):
    if work.cursor.step + 1 in {steps} and os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        work.batches[0].targets["gap"][:] = float("nan")
        work.batches[0].present["gap"][:] = True
    return original(self, work, **options)
step.Stepper._backward = corrupted
cli.main()
"""


@pytest.fixture
def corrupted_run(config, tmp_path):
    def run(steps: set[int], *overrides: str):
        program = tmp_path / "corrupted.py"
        program.write_text(WRAPPER.format(steps=steps))
        words = [program, "train", config, f"run_dir={tmp_path / 'run'}", "steps=10", *overrides]
        return tmp_path / "run", run_command(mpirun(3, sys.executable, *words))

    return run


def test_stop_names_the_rank_and_leaves_what_led_to_it(corrupted_run):
    run, result = corrupted_run({5}, "checkpoint.every_steps=4", "evaluate.every_steps=100")
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("matsci-hpc: error") == 1
    assert "step 5: the loss" in result.stderr
    assert "not finite, by the loss of rank 1; see" in result.stderr
    assert "the checkpoint of step 4 is kept" in result.stderr
    dump = run / "nonfinite" / "step-000005"
    ranks = [json.loads((dump / f"rank-0000{rank}.json").read_text()) for rank in range(3)]
    assert [each["losses"]["gap"] == "nan" for each in ranks] == [False, True, False]
    assert ["nan" in each["gradient_norms"].values() for each in ranks] == [False, True, False]
    numbers = [sample["number"] for each in ranks for sample in each["samples"]]
    assert len(set(numbers)) == len(numbers) == 7
    assert all(re.search(r"/shard-\d{5}\.h5 row \d+ \(\S+\)$", s["name"]) for each in ranks for s in each["samples"])
    assert json.loads((dump / "step.json").read_text())["lr"] == pytest.approx(
        learning_rate(4, 10, 3e-3, Schedule(warmup_steps=3), 7)
    )
    saved = load_file(run / "checkpoints" / "step-000004" / "model.safetensors")
    for name, value in load_file(dump / "model.safetensors").items():
        assert torch.equal(saved[name], value)


def test_an_orderly_end_closes_the_records_and_the_logs(corrupted_run, lines, monkeypatch):
    for name in ("mlflow", "wandb"):
        pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    bound = f"ranks_mb: {10 * 3 * BYTES_PER_RANK / 8 / 1e6}"
    run, result = corrupted_run({5}, f"records={{sinks: [mlflow, wandb], {bound}}}", "evaluate.every_steps=100")
    assert result.returncode == 2, result.stderr
    (line,) = lines(run, "ranks")  # of eight steps if they had been taken
    assert (line["first_step"], line["step"]) == (1, 4)
    losses = {line["step"]: line["loss"] for line in lines(run)}
    assert list(losses) == [1, 2, 3, 4]
    for name, read in (("mlflow", read_mlflow), ("wandb", read_wandb)):
        assert dict(read(run / name)["train/loss"]) == losses, name


def test_the_steps_before_a_spike_have_their_own_gradients(corrupted_run, lines):
    options = ("steps=30", "nonfinite.policy=skip", "spikes={window: 10, threshold: 1, before: 6}")
    run, result = corrupted_run({27}, *options, "dynamics.every_steps=1")
    assert result.returncode == 0, result.stderr
    alike = {line["step"]: line["autocorrelation"][0] for line in lines(run, "dynamics")}
    spikes = [line for line in lines(run, "dynamics") if "spike" in line and line["step"] > 28]
    assert spikes
    for line in spikes:
        before = {each["step"]: each["autocorrelation"] for each in line["spike"]["before"]}
        assert {26, 27, 28} <= before.keys()
        # Of step 28, the gradient before is that of 26.
        assert {step for step, value in before.items() if value is None} == {27, 28}
        known = {step: value for step, value in before.items() if value is not None}
        assert known == pytest.approx({step: alike[step] for step in known}, rel=1e-6)


def test_skip_leaves_parameters_and_optimizer_alone_and_counts(corrupted_run, lines):
    words = ("nonfinite.policy=skip", "checkpoint.every_steps=1", "evaluate.every_steps=100")
    run, result = corrupted_run({4, 5}, *words)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("by the loss of rank 1; the step is skipped") == 2
    for file in ("model.safetensors", "optimizer.safetensors"):
        three, five, six = (load_file(run / "checkpoints" / f"step-{step:06d}" / file) for step in (3, 5, 6))
        assert all(torch.equal(three[name], five[name]) for name in three)
        assert not all(torch.equal(five[name], six[name]) for name in five)
    assert [line["skipped_steps"] for line in lines(run)] == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert [line["loss"] is None for line in lines(run)] == [step in {4, 5} for step in range(1, 11)]


def test_too_many_skipped_steps_in_a_row_end_the_run(corrupted_run):
    run, result = corrupted_run({2, 4, 5, 6}, "nonfinite={policy: skip, limit: 3}")
    assert result.returncode == 2, result.stderr
    assert "step 6: the loss" in result.stderr
    assert "3 steps in a row were skipped" in result.stderr
    assert (run / "nonfinite" / "step-000006" / "rank-00002.json").exists()


BACK = (
    "nonfinite.policy=rollback",
    "checkpoint={every_steps: 2, keep: 10}",
    "evaluate.every_steps=100",
    "record_samples=true",
)


def test_rollback_goes_back_and_past_the_samples(corrupted_run, lines):
    run, result = corrupted_run({6}, *BACK, "spikes={rollback: {limit: 1}}")
    # In its second course, step 6 has other samples, which the wrapper spoils, too: the limit ends the run then.
    assert result.returncode == 2, result.stderr
    assert "rollback 1 of 1: from step 6, which is not finite, to step 4, and on behind its samples" in result.stderr
    assert "; all 1 rollbacks are used up; see" in result.stderr
    assert (run / "nonfinite" / "step-000006" / "rank-00002.json").exists()
    (event,) = [line for line in lines(run, "dynamics") if "rollback" in line]
    assert (event["reason"], event["spike_step"], event["step"]) == ("nonfinite", 6, 4)


ONCE = WRAPPER.replace(
    "if work.cursor.step + 1 in {steps} and", "if work.cursor.step + 1 in {steps} and self.run.state.rollbacks == 0 and"
)


@pytest.fixture
def spoilt_once(config, tmp_path):
    """A run whose data make a step of its first course not finite."""
    program = tmp_path / "once.py"
    program.write_text(ONCE.format(steps={6}))

    def run(name: str, *overrides: str):
        words = [program, "train", config, f"run_dir={tmp_path / name}", "steps=10", *overrides]
        result = run_command(mpirun(2, sys.executable, *words))
        assert result.returncode == 0, result.stderr
        return tmp_path / name

    return run


def test_a_run_with_one_spoilt_step_goes_on_the_same_after_it_was_killed(spoilt_once, lines):
    whole, killed = spoilt_once("whole", *BACK), spoilt_once("killed", *BACK)
    (event,) = [line for line in lines(whole, "dynamics") if "rollback" in line]
    assert (event["reason"], event["spike_step"], event["step"]) == ("nonfinite", 6, 4)
    course = read_run(whole)
    assert [line["step"] for line in course.steps] == list(range(1, 11))
    assert [line["rollbacks"] for line in course.steps] == [0] * 4 + [1] * 6
    assert all(line["loss"] is not None for line in course.steps)
    assert course.steps[-1]["skipped_steps"] == 0
    # No sample of the given up steps comes again in this epoch.
    taken = [json.loads(line) for line in (whole / "samples/rank-00001.jsonl").read_text().splitlines()]
    before = [sample for line in taken if line["rollbacks"] == 0 for sample in line["samples"]]
    after = [sample for line in taken if line["rollbacks"] == 1 and line["epoch"] == 0 for sample in line["samples"]]
    assert not set(before) & set(after)
    # As if it had been killed when step 4 was the newest checkpoint: it meets the step again.
    for path in (killed / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > 4:
            shutil.rmtree(path)
    (killed / "DONE").unlink()
    spoilt_once("killed", *BACK)
    mine, theirs = (load_file(each / "checkpoints/step-000010/model.safetensors") for each in (killed, whole))
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    assert len(read_run(killed).rollbacks) == 1
    assert "because of steps that were not finite" in render(course, charts(course))


def test_without_an_older_checkpoint_the_step_is_left_out(corrupted_run, lines):
    options = ("nonfinite.policy=rollback", "checkpoint.every_steps=100", "evaluate.every_steps=100")
    run, result = corrupted_run({3}, *options)
    assert result.returncode == 0, result.stderr
    assert "no checkpoint is 1 steps older than step 3, which is not finite; the step is left out" in result.stderr
    assert [line["skipped_steps"] for line in lines(run)] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert {line["rollbacks"] for line in lines(run)} == {0}
    _, result = corrupted_run({2, 3}, *options, "nonfinite.limit=2", f"run_dir={run}-again")
    assert result.returncode == 2, result.stderr
    assert "step 3: the loss" in result.stderr
    assert "; 2 steps in a row were skipped; see" in result.stderr
