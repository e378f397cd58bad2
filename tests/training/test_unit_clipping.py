"""Adaptive gradient clipping, on constructed gradients and in real runs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from matsci_hpc.config.model import Egnn
from matsci_hpc.models.registry import build_model
from matsci_hpc.targets import TargetSpec
from matsci_hpc.telemetry.dynamics.groups import group_name
from matsci_hpc.training.unit_clipping import LEAST_NORM, UnitClip, last_layers

RATIO = 0.1


def layer(weight, bias, weight_gradient, bias_gradient):
    made = nn.Linear(len(weight[0]), len(weight)).double()
    for parameter, value, gradient in ((made.weight, weight, weight_gradient), (made.bias, bias, bias_gradient)):
        parameter.data = torch.tensor(value, dtype=torch.float64)
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
    return made


def test_each_unit_is_bounded_by_its_own_norm():
    model = nn.Sequential(
        # Norms of the rows: 5, 5 and 0; of their gradients 10, 0.5 and 2.
        layer([[3, 4], [3, 4], [0, 0]], [0.6, 0.8, 0.0], [[6, 8], [0.3, 0.4], [2, 0]], [0.0, 0.03, 0.04]),
        layer([[1, 2, 2]], [0.0], [[30, 0, 0]], [5.0]),
    )
    found = UnitClip(RATIO, model.named_parameters(), {"1.weight"}).clip()
    first, second = model
    torch.testing.assert_close(first.weight.grad[0], torch.tensor([0.3, 0.4], dtype=torch.float64))  # 0.1 of 5
    assert first.weight.grad[1].tolist() == [0.3, 0.4]  # at the bound, to the last bit
    assert first.weight.grad[2].tolist() == pytest.approx([RATIO * LEAST_NORM, 0])
    assert first.bias.grad.tolist() == [0.0, 0.03, 0.04]  # one unit, of norm 1
    assert second.weight.grad.tolist() == [[30, 0, 0]]  # left alone
    assert second.bias.grad.tolist() == pytest.approx([RATIO * LEAST_NORM])
    assert found.share == 3 / 5
    assert found.by_group == {"0": 2 / 4, "1": 1.0}


def test_a_column_is_one_unit_and_no_gradient_is_none():
    model = layer([[3.0], [4.0]], [1.0, 0.0], [[6.0], [8.0]], [0.0, 0.0])
    assert UnitClip(RATIO, model.named_parameters()).clip().share == 1 / 2
    assert model.weight.grad.flatten().tolist() == pytest.approx([0.3, 0.4])
    assert model.bias.grad.tolist() == [0.0, 0.0]


def test_what_is_frozen_counts_once_it_is_trained():
    model = layer([[3, 4]], [0.0], [[6, 8]], [5.0])
    model.weight.requires_grad_(False)
    clip = UnitClip(RATIO, model.named_parameters())
    assert clip.clip().share == 1.0  # of the bias alone
    assert model.weight.grad.flatten().tolist() == [6, 8]
    model.weight.requires_grad_(True)
    clip.clip()
    assert model.weight.grad.flatten().tolist() == pytest.approx([0.3, 0.4])


def test_the_last_layer_of_every_head_is_left_alone():
    specs = {"a.b": TargetSpec(kind="regression"), "c": TargetSpec(kind="binary")}
    model = build_model(Egnn(layers=1, width=4, head_layers=2), specs, 4.0, {})
    names = {name for name, _ in model.named_parameters()}
    found = last_layers(model)
    assert found < names
    assert found == {f"heads.target:{key}.net.2.{kind}" for key in ("a%2Eb", "c") for kind in ("weight", "bias")}


def norm_of_units(values: torch.Tensor) -> torch.Tensor:
    """Of each row of a matrix that has several columns, else of all: written once more than in the package."""
    if values.ndim == 2 and min(values.shape) > 1:
        return values.square().sum(dim=1).sqrt()
    return values.square().sum().sqrt().reshape(1)


def gradients_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    """What the optimiser was given in a step, from Adam's mean before and after it."""
    before, after = (load_file(run / f"checkpoints/step-{n:06d}/optimizer.safetensors") for n in (step - 1, step))
    keys = [key for key in after if key.endswith("|exp_avg")]
    return {key.removesuffix("|exp_avg"): (after[key] - 0.9 * before[key]) / 0.1 for key in keys}


@pytest.mark.mpi
def test_a_run_is_clipped_and_says_so(train, whole, lines):
    options = (f"optimizer={{lr: 3.0e-3, clip_ratio: {RATIO}}}", "checkpoint={every_steps: 1, keep: 30}")
    run = train("run", 1, *options)
    for step in (2, 9, 20):
        weights = load_file(run / f"checkpoints/step-{step - 1:06d}/model.safetensors")
        clipped = units = 0
        groups: dict[str, list[int]] = {}
        free = 0.0
        for name, gradient in gradients_of(run, step).items():
            ratio = norm_of_units(gradient) / norm_of_units(weights[name]).clamp(min=LEAST_NORM)
            if ".net.2." in name:
                free = max(free, float(ratio.max()))
                continue
            assert ratio.max() < RATIO * (1 + 1e-6), name
            at_bound = int((ratio > RATIO * (1 - 1e-6)).sum())
            counts = groups.setdefault(group_name(name), [0, 0])
            counts[0] += at_bound
            counts[1] += len(ratio)
            clipped += at_bound
            units += len(ratio)
        assert free > RATIO  # of the last layers
        line = next(each for each in lines(run) if each["step"] == step)
        assert line["clipped_units"] == pytest.approx(clipped / units)
        assert 0 < line["clipped_units"] < 1
        dynamics = next(each for each in lines(run, "dynamics") if each["step"] == step)
        assert dynamics["clipped_units"] == line["clipped_units"]
        for name, (count, every) in groups.items():
            assert dynamics["groups"][name]["clipped_units"] == pytest.approx(count / every), name
    assert "clipped_units" not in json.dumps(lines(whole(1)))


@pytest.mark.mpi
def test_any_number_of_ranks_clips_the_same(train, lines):
    options = (f"optimizer={{lr: 3.0e-3, clip_ratio: {RATIO}, clip_norm: 0.5, clip_quantile: 0.5}}", "steps=12")
    one = lines(train("one", 1, *options))
    for ranks in (2, 3):
        for a, b in zip(one, lines(train(f"on{ranks}", ranks, *options)), strict=True):
            assert b["ranks"] == ranks
            assert b["clipped_units"] == a["clipped_units"]
            assert (b["loss"], b["grad_norm"]) == pytest.approx((a["loss"], a["grad_norm"]), rel=1e-6)
