"""Fine-tuning: what stays frozen, how fast layers learn, and what cannot be meant."""

import json

import pytest
import torch
from fine_tuned import changed, error_of, noted, saved
from ranks import run_ranks
from safetensors.torch import load_file
from test_exactness import assert_same_run

from matsci_hpc.analysis.records import read_run
from matsci_hpc.analysis.report import write_report

pytestmark = pytest.mark.mpi
STEPS = ("steps=8", "checkpoint={every_steps: 1, keep: 20}", "evaluate.every_steps=8")


def bytes_of(tensors: dict[str, torch.Tensor], *parts: str) -> int:
    return sum(
        value.nbytes for name, value in tensors.items() if name.startswith(parts) and not name.endswith(("mean", "std"))
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_frozen_encoder_stays_as_it_was_and_costs_neither_backward_nor_exchange(pretrained, observed, ranks):
    options = (f"init_from={pretrained}", "fine_tune.freeze=encoder", "optimizer.weight_decay=0.1", "average.decay=0.9")
    run, seen = observed("run", ranks, *STEPS, *options)
    theirs = saved(pretrained, 8)
    for kind in ("model", "average"):
        ours = saved(run, 8, kind)
        encoder = [name for name in ours if name.startswith("encoder.")]
        assert all(torch.equal(ours[name], theirs[name]) for name in encoder)
    first, last = saved(run, 1), saved(run, 8)
    assert all(
        not torch.equal(first[name], last[name]) for name in last if name.startswith("heads.") and ".net." in name
    )
    assert not [name for name in saved(run, 8, "optimizer") if name.startswith("encoder.")]
    for rank in range(ranks):
        steps = json.loads((seen / f"steps-{rank}.json").read_text())
        assert len(steps) == 8
        assert not any(each["encoder"] for each in steps)
        assert {8 * each["held"] for each in steps} == {bytes_of(last, "heads.")}
        assert {each["sent"] for each in steps} == {bytes_of(last, "heads.") if ranks > 1 else 0}


def test_layers_thaw_one_after_the_other(pretrained, observed):
    freeze = "fine_tune.freeze={encoder: 6, layers.1: 4, atom_readout: 2}"
    run, seen = observed("run", 2, *STEPS, f"init_from={pretrained}", freeze)
    after = {0: saved(pretrained, 8)} | {step: saved(run, step) for step in range(1, 9)}
    moved = [changed(after[step], after[step + 1]) for step in range(8)]
    assert moved[:2] == [set()] * 2
    assert moved[2:4] == [{"atom_readout"}] * 2
    assert moved[4:6] == [{"atom_readout", "layers.1"}] * 2
    assert moved[6:] == [{"atom_readout", "layers.1", "layers.0", "elements"}] * 2
    last = after[8]
    heads, readout = bytes_of(last, "heads."), bytes_of(last, "encoder.atom_readout.")
    top = bytes_of(last, "encoder.layers.1.")
    sent = [each["sent"] for each in json.loads((seen / "steps-1.json").read_text())]
    assert sent == [heads] * 2 + [heads + readout] * 2 + [heads + readout + top] * 2 + [bytes_of(last, "")] * 2
    assert [each["encoder"] for each in json.loads((seen / "steps-0.json").read_text())] == [False] * 2 + [True] * 6
    # Records follow: groups that are trained, and those that are not.
    lines = [json.loads(line) for line in (run / "dynamics.jsonl").read_text().splitlines()]
    trained = [{name for name in line["groups"] if name.startswith("encoder")} for line in lines]
    assert trained[1] == set()
    assert trained[2] == {"encoder.atom_readout"}
    assert trained[4] == {"encoder.atom_readout", "encoder.layers.1"}
    assert trained[6] == {"encoder.atom_readout", "encoder.layers.0", "encoder.layers.1", "encoder.elements"}
    assert lines[4]["frozen"] == ["encoder.elements", "encoder.layers.0"]
    assert "frozen" not in lines[6]
    assert all(group["update_norm"] > 0 for line in lines for group in line["groups"].values())
    assert len(read_run(run).dynamics) == 8
    assert (write_report(run)).stat().st_size > 1e6


PHASES = ("fine_tune.freeze=[elements, layers.0]", "fine_tune.freeze_steps=9", "fine_tune.layer_decay=0.7")


def test_one_rank_and_two_are_the_same_computation(pretrained, train, lines):
    one, two = (train(f"on{ranks}", ranks, f"init_from={pretrained}", *PHASES) for ranks in (1, 2))
    assert_same_run(lines, one, two, steps=20)
    assert noted(one) == noted(two)


@pytest.mark.slow
def test_virtual_ranks_follow_real_ones_to_the_last_bit(pretrained, train):
    options = ("parallel.reduction=ordered", "precision=float32", f"init_from={pretrained}", *PHASES)
    real = train("real", 2, *options)
    virtual = train("virtual", 1, *options, "parallel.virtual_ranks=2")
    for kind in ("model", "optimizer"):
        ours, theirs = saved(virtual, 20, kind), saved(real, 20, kind)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stop_within_a_frozen_phase_changes_nothing(pretrained, train, ranks):
    options = (f"init_from={pretrained}", "fine_tune.optimizer=kept", *PHASES)
    whole = train("whole", ranks, *options)
    parts = train("parts", ranks, *options, "max_time_s=0.0001")
    stopped = max((parts / "checkpoints").glob("step-*")).name
    assert int(stopped.removeprefix("step-")) < 9
    before = noted(parts)
    train("parts", ranks, *options)
    assert noted(parts) == before
    for kind in ("model", "optimizer"):
        ours, theirs = saved(parts, 20, kind), saved(whole, 20, kind)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_every_layer_learns_at_its_own_rate(pretrained, observed):
    rates = ("fine_tune.encoder_lr=0.5", "fine_tune.layer_decay=0.1", "optimizer={lr: 1.0e-3, weight_decay: 0}")
    plain = ("schedule={warmup_steps: 0, decay: constant}", "optimizer.clip_norm=null")
    run, seen = observed("run", 1, "steps=1", f"init_from={pretrained}", *rates, *plain)
    before, after = load_file(seen / "model-0.safetensors"), saved(run, 1)
    for part, factor in (
        ("heads.", 1.0),
        ("encoder.atom_readout.", 0.5),
        ("encoder.layers.1.", 0.05),
        ("encoder.layers.0.", 0.005),
        ("encoder.elements.", 0.0005),
    ):
        moves = [float((after[name] - before[name]).abs().max()) for name in after if name.startswith(part)]
        # Adam's first step moves each number by the learning rate, or by less where the gradient is as small as eps.
        assert max(moves) == pytest.approx(factor * 1e-3, rel=1e-3), part
    assert "encoder.layers.0 0.005" in noted(run)["training"][0]


def test_settings_hold_without_another_run_too(config, train):
    run = train("run", 1, *STEPS, "fine_tune.freeze=encoder", "fine_tune.freeze_steps=4")
    assert changed(saved(run, 1), saved(run, 4)) == set()
    assert changed(saved(run, 4), saved(run, 5)) == {"atom_readout", "layers.0", "layers.1", "elements"}
    assert noted(run)["training"][0].startswith("encoder: frozen for the first 4 steps, ")
    assert "another 'fine_tune'" in error_of(
        run_ranks(
            1, "train", config, f"run_dir={run}", "steps=9", "fine_tune.freeze=encoder", "fine_tune.freeze_steps=5"
        )
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "fine_tune.freeze=[layers.2]",
            "the encoder has no 'layers.2'; it has elements, layers.0, layers.1, atom_readout",
        ),
        ("fine_tune.reinitialize=[encoder]", "nothing of the encoder would be taken over"),
        ("fine_tune.reinitialize=[elements, layers, atom_readout]", "nothing of the encoder would be taken over"),
        ("fine_tune.reinitialize=[elments]", "fine_tune.reinitialize: the encoder has no 'elments'; it has elements"),
        ("fine_tune.freeze_steps=3", "nothing is frozen; give freeze: encoder"),
        ("fine_tune={freeze: {encoder: 3}, freeze_steps: 3}", "leave out freeze_steps"),
        ("fine_tune.layer_decay=1.5", "less than or equal to 1"),
        ("fine_tune.freez=encoder", "did you mean freeze"),
    ],
)
def test_what_cannot_be_meant_is_said(config, tmp_path, override, said):
    result = run_ranks(2 if "layers" in override else 1, "train", config, f"run_dir={tmp_path / 'run'}", override)
    assert said in error_of(result)


@pytest.mark.slow
def test_a_spike_may_lead_back_into_a_frozen_phase(pretrained, train, lines):
    """Steps after a rollback freeze and thaw as those before it."""
    options = (f"init_from={pretrained}", "fine_tune.freeze=encoder", "fine_tune.freeze_steps=11")
    back = "rollback: {back_steps: 4, limit: 12}"
    run = train("run", 2, *options, "steps=30", f"spikes={{window: 10, threshold: 1, on_spike: rollback, {back}}}")
    gone_back = [line for line in lines(run, "dynamics") if "rollback" in line]
    assert any(line["step"] < 11 < line["spike_step"] for line in gone_back)
    lives = [line for line in lines(run, "dynamics") if "groups" in line]
    for line in lives:
        assert ("encoder.elements" in line["groups"]) is (line["step"] > 11)


@pytest.mark.slow
def test_compiled_and_eager_freeze_and_thaw_alike(pretrained, train, lines):
    eager, compiled = (
        train(name, 1, f"init_from={pretrained}", *PHASES, f"optimize={name}", "steps=12")
        for name in ("none", "compile")
    )
    assert_same_run(lines, eager, compiled, steps=12, tolerance=1e-6)
