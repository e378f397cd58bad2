"""What a run records of its optimiser, and how it goes back from spikes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from ranks import mpirun, run_command, run_ranks
from safetensors.torch import load_file
from sink_logs import read_mlflow, read_tensorboard, read_wandb

from matsci_hpc.analysis.records import read_run
from matsci_hpc.telemetry.rank_lines import BYTES_PER_RANK
from matsci_hpc.whole_files import file_checksum

pytestmark = pytest.mark.mpi
TIMES = {"life", "time_s"}


def last(run: Path, kind: str = "model") -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")) / f"{kind}.safetensors")


def without_life(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def test_a_line_holds_what_the_step_did_to_every_layer(train, lines):
    run = train("run", 1, "checkpoint={every_steps: 1, keep: 30}", "optimizer.weight_decay=0", "batch.micro_batches=3")
    found = lines(run, "dynamics")
    assert [line["step"] for line in found] == list(range(1, 21))
    assert [line["grad_norm"] for line in found] == [line["grad_norm"] for line in lines(run)]
    line = found[9]
    groups = line["groups"]
    assert {"encoder.layers.0", "encoder.layers.1", "encoder.elements"} < groups.keys()
    before, after = (load_file(run / f"checkpoints/step-{step:06d}/model.safetensors") for step in (9, 10))
    moments = load_file(run / "checkpoints/step-000010/optimizer.safetensors")
    for name, group in groups.items():
        keys = [key for key in before if key.startswith(f"{name}.") and f"{key}|exp_avg" in moments]
        flat = [torch.cat([each[key].flatten() for key in keys]) for each in (before, after)]
        assert group["parameters"] == len(flat[0])
        assert group["weight_norm"] == pytest.approx(float(flat[0].norm()), rel=1e-9)
        assert group["update_norm"] == pytest.approx(float((flat[1] - flat[0]).norm()), rel=1e-6)
        assert group["effective_lr"] == pytest.approx(group["update_norm"] / group["weight_norm"], rel=1e-9)
        # Without weight decay, the update is the learning rate times r.
        ratio = group["ratio"]
        assert ratio["values"] == sum(ratio["histogram"]) == group["parameters"]
        moved = (flat[1] - flat[0]) / line["lr"]
        assert ratio["share_beyond"] == pytest.approx(float((moved.abs() > 0.9).double().mean()), abs=0.01)
        assert ratio["mean"] == pytest.approx(-float(moved.mean()), abs=1e-4)
    assert line["noise"]["parts"] == 3
    assert sum(each is not None for each in line["autocorrelation"]) == 8
    # Adam's first step has r = -1 or 1 wherever there is a gradient; later ones have not.
    shares = [each["groups"]["encoder.layers.1"]["ratio"]["share_beyond"] for each in found]
    assert shares[0] > 0.9
    assert shares[19] < 0.5


@pytest.mark.slow
def test_virtual_ranks_see_the_noise_of_real_ones(train, lines):
    real, virtual = train("real", 4), train("virtual", 2, "parallel.virtual_ranks=2", "parallel.backend=mpi")
    seven = [line for line in lines(real) if line["graphs"] == 7]
    assert seven
    for a, b in zip(lines(real, "dynamics"), lines(virtual, "dynamics"), strict=True):
        assert a["noise"]["parts"] == b["noise"]["parts"]
        assert a["noise"]["trace"] == pytest.approx(b["noise"]["trace"], rel=1e-6)
        assert a["noise"]["square"] == pytest.approx(b["noise"]["square"], rel=1e-4, abs=1e-6 * b["noise"]["trace"])
        known = [None if each is None else pytest.approx(each, rel=1e-4, abs=1e-5) for each in a["autocorrelation"]]
        assert b["autocorrelation"] == known
    assert {line["noise"]["parts"] for line in lines(real, "dynamics")} <= {1, 2, 3, 4}


def test_a_resumed_run_records_what_one_that_never_stopped_does(train, lines):
    options = ("log_every=3", "average.decay=0.9", "optimizer.clip_quantile=0.5", "spikes={window: 10, threshold: 2}")
    whole = train("whole", 2, *options)
    halted = train("halted", 2, *options, "steps=20")
    for path in (halted / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > 10:
            shutil.rmtree(path)
    (halted / "DONE").unlink()
    result = run_ranks(2, "train", halted / "config.yaml")
    assert result.returncode == 0, result.stderr
    again = [line for line in lines(halted, "dynamics") if line["life"] == 1]
    assert without_life(again) == [line for line in without_life(lines(whole, "dynamics")) if line["step"] > 10]
    for kind in ("model", "optimizer", "course", "average"):
        mine, theirs = last(halted, kind), last(whole, kind)
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, rtol=0, atol=0, equal_nan=True)


def test_averages_are_kept_evaluated_and_saved(train, lines):
    run = train("run", 1, "average.decay=0.6", "checkpoint={every_steps: 1, keep: 30}")
    names = [key.partition("|")[0] for key in last(run, "optimizer") if key.endswith("|exp_avg")]
    mean = None
    for step in range(1, 21):
        folder = run / f"checkpoints/step-{step:06d}"
        theta, saved = load_file(folder / "model.safetensors"), load_file(folder / "average.safetensors")
        assert saved.keys() == theta.keys()
        if mean is not None:
            keep = min(0.6, (1 + step) / (10 + step))
            for name in names:
                expected = keep * mean[name] + (1 - keep) * theta[name]
                torch.testing.assert_close(saved[name], expected, rtol=1e-10, atol=1e-12)
        mean = saved
    assert {line["weights"] for line in lines(run, "evaluations")} == {"average"}
    # Evaluating them left the parameters alone: training is that of a run without averages.
    plain = train("plain", 1)
    assert [line["loss"] for line in lines(plain)] == [line["loss"] for line in lines(run)]
    assert lines(plain, "evaluations")[-1]["loss"] != lines(run, "evaluations")[-1]["loss"]
    assert not list(plain.glob("checkpoints/*/average.safetensors"))


def test_a_checkpoint_of_the_format_before_is_gone_on_from(copy_of_whole, lines):
    run = copy_of_whole(1)
    for path in (run / "checkpoints").glob("step-*"):
        state = json.loads((path / "state.json").read_text()) | {"format_version": 2}
        for key in ("rollbacks", "slow_until", "plateaus", "evaluations_since_best"):
            del state["run"][key]
        (path / "state.json").write_text(json.dumps(state))
        (path / "course.safetensors").unlink()
        sums = json.loads((path / "checksums.json").read_text())
        sums = {name: file_checksum(path / name) for name in sums if name != "course.safetensors"}
        (path / "checksums.json").write_text(json.dumps(sums))
    result = run_ranks(1, "train", run / "config.yaml", f"run_dir={run}", "steps=22", "average.decay=0.9")
    assert result.returncode == 0, result.stderr
    assert [line["step"] for line in lines(run) if line["life"] == 1] == [21, 22]
    assert (run / "checkpoints/step-000022/average.safetensors").exists()


def gone_back_to(run: Path, step: int) -> None:
    """As if the run had been killed when this was its newest checkpoint."""
    assert (run / f"checkpoints/step-{step:06d}").is_dir()
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    (run / "DONE").unlink()


SPIKY = ("steps=30", "spikes={window: 10, threshold: 1, before: 4, on_spike: rollback, rollback: {limit: 2}}")


def spikes(found: list[dict]) -> list[dict]:
    return [line for line in found if "spike" in line]


def test_a_spike_is_written_with_the_steps_before_it(train, lines):
    run = train("run", 1, "steps=30", "log_every=10", "spikes={window: 10, threshold: 1.5, before: 4}")
    found = spikes(lines(run, "dynamics"))
    assert found
    assert not (run / "STOPPED").exists()
    every = train("every", 1, "steps=30")
    losses = {line["step"]: line["loss"] for line in lines(every)}
    for line in found:
        spike = line["spike"]
        assert spike["loss"] == line["loss"] == losses[line["step"]]
        assert spike["deviations"] > 1.5
        assert spike["loss"] > spike["median"]
        assert [each["step"] for each in spike["before"]] == list(range(line["step"] - 4, line["step"]))
        assert [each["loss"] for each in spike["before"]] == [losses[each["step"]] for each in spike["before"]]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_spike_takes_the_run_back_and_past_its_samples(train, lines, ranks):
    run = train("run", ranks, *SPIKY, "record_samples=true")
    found = lines(run, "dynamics")
    events = [line for line in found if "rollback" in line]
    assert [event["rollback"] for event in events] == [1, 2]
    for event in events:
        assert event["step"] < event["spike_step"]
        assert event["step"] % 5 == 0
    assert (run / "DONE").exists()
    assert lines(run)[-1]["rollbacks"] == 2
    assert len(spikes(found)) >= 2
    # What was trained on when: no batch between checkpoint and spike comes again in the same epoch.
    taken = [json.loads(line) for line in (run / "samples/rank-00000.jsonl").read_text().splitlines()]
    first = events[0]
    turn = next(i for i, line in enumerate(taken) if line["step"] == first["spike_step"])
    assert taken[turn + 1]["step"] == first["step"] + 1
    for line in taken[turn + 1 : turn + 4]:
        earlier = [each for each in taken[: turn + 1] if each["epoch"] == line["epoch"]]
        assert not set(line["samples"]) & {sample for each in earlier for sample in each["samples"]}


@pytest.mark.slow
def test_a_run_that_was_killed_after_a_rollback_ends_the_same(train, lines):
    whole = train("whole", 2, *SPIKY)
    killed = train("killed", 2, *SPIKY)
    event = next(line for line in lines(whole, "dynamics") if "rollback" in line)
    gone_back_to(killed, event["step"])
    result = run_ranks(2, "train", killed / "config.yaml")
    assert result.returncode == 0, result.stderr
    mine, theirs = last(killed), last(whole)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    again, once = read_run(killed), read_run(whole)
    assert len(lines(killed, "dynamics")) > len(lines(whole, "dynamics"))
    assert without_life(again.spikes) == without_life(once.spikes)
    assert without_life(again.rollbacks) == without_life(once.rollbacks)
    assert without_life(again.dynamics) == without_life(once.dynamics)


def test_the_logs_of_other_programs_follow_a_rollback(train, monkeypatch):
    for name in ("tensorboard", "mlflow", "wandb"):
        pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = train("run", 1, *SPIKY, "log_every=2", "records.sinks=[mlflow,wandb,tensorboard]")
    found = read_run(run)
    assert len(found.rollbacks) == 2
    losses = {line["step"]: line["loss"] for line in found.steps}
    held_out = {line["step"]: line["loss"] for line in found.evaluations}
    for name, read in (("mlflow", read_mlflow), ("wandb", read_wandb), ("tensorboard", read_tensorboard)):
        log = read(run / name)
        assert dict(log["train/loss"]) == pytest.approx(losses, rel=1e-6), name
        assert dict(log["val/loss"]) == pytest.approx(held_out, rel=1e-6), name
        assert dict(log["train/rollbacks"])[30] == 2, name


def test_records_of_the_course_given_up_are_taken_back(train):
    bound = f"records.ranks_mb={30 * 1 * BYTES_PER_RANK / 4 / 1e6}"
    run = train("run", 1, *SPIKY, bound, "dynamics.every_steps=2", "record_samples=true")
    found = read_run(run)
    (first, second) = found.rollbacks
    assert {first["spike_step"], second["spike_step"]} <= {line["step"] for line in found.spikes}
    courses = [(0, first["step"]), (first["step"], second["step"]), (second["step"], 30)]
    if second["step"] < first["step"]:
        courses = [(0, second["step"]), (0, 0), (second["step"], 30)]
    belongs = {step: number for number, (start, end) in enumerate(courses) for step in range(start + 1, end + 1)}
    for line in [*found.steps, *found.dynamics]:
        assert line["rollbacks"] == belongs[line["step"]]
    assert all(line["update_norm"] is not None for line in found.dynamics)
    # Four steps a line, none missing and none twice, and each the sum of its own steps.
    assert [line["step"] for line in found.ranks] == [4, 8, 12, 16, 20, 24, 28, 30]
    graphs = {line["step"]: line["edges"] for line in found.steps}
    for before, line in zip([0, 4, 8, 12, 16, 20, 24, 28], found.ranks, strict=True):
        assert (line["first_step"], line["steps"]) == (before + 1, line["step"] - before)
        assert line["edges"] == [sum(graphs[step] for step in range(before + 1, line["step"] + 1))]
    taken = [json.loads(line) for line in (run / "samples/rank-00000.jsonl").read_text().splitlines()]
    assert {line["rollbacks"] for line in taken} == {0, 1, 2}


def test_every_checkpoint_that_a_run_may_go_back_to_has_its_best_one_beside_it(train):
    run = train("run", 1, *SPIKY, "checkpoint={every_steps: 5, keep: 3}", "evaluate.every_steps=3")
    assert read_run(run).rollbacks
    best = {
        int(path.name[5:]): json.loads((path / "state.json").read_text())["run"]["best_step"]
        for path in (run / "checkpoints").glob("step-*")
    }
    assert best[25] == 24  # which neither is among the newest nor the best of all
    assert set(best.values()) <= best.keys()


def test_a_best_checkpoint_that_is_gone_is_not_waited_for(train):
    plain = train("plain", 1, "steps=30", "evaluate.every_steps=24", "checkpoint={every_steps: 5, keep: 30}")
    gone_back_to(plain, 25)
    shutil.rmtree(plain / "checkpoints/step-000024")
    newest = plain / "checkpoints/step-000025"
    state = json.loads((newest / "state.json").read_text())
    assert state["run"]["best_step"] == 24
    state["run"]["best_loss"] = 0.0  # which none reaches again
    (newest / "state.json").write_text(json.dumps(state))
    sums = json.loads((newest / "checksums.json").read_text())
    (newest / "checksums.json").write_text(json.dumps(sums | {"state.json": file_checksum(newest / "state.json")}))
    result = run_ranks(1, "train", plain / "config.yaml", *SPIKY[1:])
    assert result.returncode == 0, result.stderr
    (event, *_) = read_run(plain).rollbacks
    assert event["step"] == 25
    state = json.loads((plain / "checkpoints/step-000030/state.json").read_text())["run"]
    assert state["best_step"] == 30


# Checkpoints lie on a disk that takes its time over every file.
SLOW_DISK = """\
import time
from matsci_hpc import cli
from matsci_hpc.training import checkpoint
original = checkpoint.file_checksum
def slow(path, *arguments):
    time.sleep(1.5)
    return original(path, *arguments)
checkpoint.file_checksum = slow
cli.main()
"""


def test_a_slow_look_for_a_checkpoint_is_no_hang(config, tmp_path):
    program = tmp_path / "slow.py"
    program.write_text(SLOW_DISK)
    spikes = "spikes={window: 10, threshold: 1, on_spike: rollback, rollback: {limit: 1, back_steps: 4}}"
    words = [program, "train", config, f"run_dir={tmp_path / 'run'}", "steps=30", spikes, "parallel.timeout_s=4"]
    result = run_command(mpirun(2, sys.executable, *words))
    assert result.returncode == 0, result.stderr
    assert read_run(tmp_path / "run").rollbacks


def test_the_same_samples_again_at_a_lower_rate(train, lines):
    back = "rollback: {data: repeat, lr_factor: 0.25, lr_steps: 4, limit: 1}"
    run = train("run", 1, "steps=30", f"spikes={{window: 10, threshold: 1.5, on_spike: rollback, {back}}}")
    plain = train("plain", 1, "steps=30")
    (event,) = [line for line in lines(run, "dynamics") if "rollback" in line]
    rates = {line["step"]: line["lr"] for line in lines(plain)}
    graphs = {line["step"]: line["edges"] for line in lines(plain)}
    after = [line for line in lines(run) if line["rollbacks"] == 1]
    assert after[0]["step"] == event["step"] + 1
    for line in after:
        slow = line["step"] <= event["slow_until"]
        assert line["lr"] == pytest.approx(rates[line["step"]] * (0.25 if slow else 1.0))
        assert line["edges"] == graphs[line["step"]]  # of the same samples


def test_a_run_without_checkpoints_goes_on_after_a_spike(config, tmp_path, lines):
    options = ("checkpoint.every_steps=100", "evaluate.every_steps=100")
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", *SPIKY, *options)
    assert result.returncode == 0
    assert "no checkpoint is 1 steps older" in result.stderr
    last_line = lines(tmp_path / "run")[-1]
    assert last_line["rollbacks"] == 0
    assert last_line["skipped_steps"] == len(spikes(lines(tmp_path / "run", "dynamics"))) > 0


def test_a_repetition_that_would_end_the_same_is_refused(config, tmp_path):
    spikes = "spikes={on_spike: rollback, rollback: {data: repeat}}"
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", spikes)
    assert result.returncode == 2
    assert "would meet the same spike again" in result.stderr
