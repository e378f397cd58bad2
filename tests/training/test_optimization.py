import copy
import itertools
import math
import sys

import pytest
import torch
from ranks import run_command

from matsci_hpc.config.train import Optimizer, Schedule
from matsci_hpc.training.optimization import build_optimizer, learning_rate


def rates(schedule: Schedule, steps: int = 100, batch: int = 32) -> list[float]:
    return [learning_rate(step, steps, 0.1, schedule, batch) for step in range(steps)]


def test_warm_up_is_linear_and_ends_at_the_peak():
    values = rates(Schedule(warmup_steps=10, decay="constant"))
    assert values[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    assert set(values[9:]) == {0.1}


@pytest.mark.parametrize("decay", ["cosine", "exponential"])
def test_decay_falls_from_the_peak_to_the_final_fraction(decay):
    values = rates(Schedule(warmup_steps=10, decay=decay, final_fraction=0.05))
    assert values[10] == pytest.approx(0.1)
    assert values[-1] == pytest.approx(0.005)
    assert all(a > b for a, b in itertools.pairwise(values[10:]))


def test_exponential_decay_has_a_constant_factor():
    values = rates(Schedule(decay="exponential"))
    factors = {round(b / a, 12) for a, b in itertools.pairwise(values)}
    assert len(factors) == 1


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", 4.0), ("linear", 16.0)])
def test_scaling_with_the_global_batch(rule, factor):
    schedule = Schedule(scaling=rule, base_batch=32, decay="constant")
    assert rates(schedule, batch=512)[0] == pytest.approx(0.1 * factor)


def test_one_step_run_and_run_shorter_than_the_warm_up_are_finite():
    assert rates(Schedule(), steps=1) == pytest.approx([0.1])
    assert all(math.isfinite(rate) for rate in rates(Schedule(warmup_steps=500), steps=3))


def test_weight_decay_leaves_vectors_alone():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    decayed, free = build_optimizer(Optimizer(weight_decay=0.3), model).param_groups
    assert [each.ndim for each in decayed["params"]] == [2]
    assert decayed["weight_decay"] == 0.3
    assert {each.ndim for each in free["params"]} == {1}
    assert free["weight_decay"] == 0.0


def test_the_steps_are_those_of_pytorch_without_its_compiler():
    model = torch.nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    ours = build_optimizer(Optimizer(lr=0.1), model)
    pytorchs = torch.optim.AdamW([dict(group, params=[]) for group in ours.param_groups], fused=True)
    for group, parameter in zip(pytorchs.param_groups, (twin.weight, twin.bias), strict=True):
        group["params"] = [parameter]
    for seed in range(3):
        torch.manual_seed(seed)
        for each in (*model.parameters(), *twin.parameters()):
            each.grad = torch.full_like(each, 0.1 * seed - 0.1)
        ours.step()
        pytorchs.step()
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.bias, twin.bias)


def test_a_rank_does_not_import_the_compiler_for_nothing(config, tmp_path):
    words = ["train", str(config), f"run_dir={tmp_path / 'run'}", "steps=2"]
    program = (
        "import sys\nfrom matsci_hpc.cli import cli\n"
        f"cli.main({words!r}, standalone_mode=False)\n"
        "sys.exit(sorted(name for name in ('torch._dynamo', 'sympy') if name in sys.modules) or 0)"
    )
    done = run_command([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr


def test_a_plateau_lowers_the_rate_by_its_factor_down_to_the_final_fraction():
    schedule = Schedule(decay="plateau", warmup_steps=4, plateau_factor=0.5, final_fraction=0.1)
    found = [learning_rate(50, 100, 0.1, schedule, 32, plateaus) for plateaus in range(6)]
    assert found == pytest.approx([0.1, 0.05, 0.025, 0.0125, 0.01, 0.01])
    assert learning_rate(1, 100, 0.1, schedule, 32, 0) == pytest.approx(0.05)  # warm-up
