"""Weights of targets that are learned: the rules by themselves, and in runs on real ranks and materials."""

import math
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from test_exactness import assert_same_run

from matsci_hpc.config.loading import dump_config, load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.tasks import Task
from matsci_hpc.training.weights.gradnorm import FIRST, GradNormWeights
from matsci_hpc.training.weights.uncertainty import UncertaintyWeights

RULES = {
    "uncertainty": ("weighting={rule: uncertainty, rate: 0.05}",),
    "gradnorm": ("weighting={rule: gradnorm, every_steps: 3, rate: 0.5}",),
}
# What both share is tested by the one that has more to remember; the other one in the tests that take longer.
HARDER_FIRST = ("gradnorm", pytest.param("uncertainty", marks=pytest.mark.slow))
KEYS = ("loss", "losses", "weights", "grad_norm")


def task(name: str, kind: str = "regression", weight: float = 1.0) -> Task:
    return Task(name, TargetSpec(kind=kind), weight, "huber", TargetStatistics(count=9))


def test_log_variances_follow_autograd_and_adam():
    """Against the objective of the paper, written down for PyTorch's own derivative and optimiser."""
    tasks = [task("gap", weight=2.0), task("metal", "binary")]
    weights = UncertaintyWeights(tasks, rate=0.05)
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.05)
    factor, own = torch.tensor([0.5, 1.0]), torch.tensor([2.0, 1.0])
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        losses = torch.rand(2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 0.2])
        objective = (own * (factor * torch.exp(-s) * losses + s / 2)).sum()
        named = dict(zip(("gap", "metal"), losses.tolist(), strict=True))
        assert weights.objective(named) == pytest.approx(objective.item(), rel=1e-12)
        adam.zero_grad()
        objective.backward()
        adam.step()
        weights.learn(named, {})
        expected = (own * factor * torch.exp(-s)).tolist()
        assert list(weights.current.values()) == pytest.approx(expected, rel=1e-9)


def test_uncertainty_of_constant_losses_is_theirs():
    """sigma^2 of a constant loss is its own size: L for numbers, 2 L for classes."""
    weights = UncertaintyWeights([task("gap"), task("metal", "binary")], rate=0.05)
    for _ in range(3000):
        weights.learn({"gap": 4.0, "metal": 0.1}, {})
    assert weights.current == pytest.approx({"gap": 0.5 / 4.0, "metal": 1 / 0.2}, rel=1e-2)


@pytest.mark.parametrize(("loss", "factor"), [(0.0, 50.0), (1e-9, 50.0), (1e9, 1 / 50)])
def test_a_target_of_almost_no_or_endless_loss_gets_a_weight_within_bounds(loss, factor):
    """Its best log-variance lies beyond the bound, where a looser one lets it go; another target goes its own way."""
    tasks = [task("gap", weight=2.0), task("metal", "binary")]
    bounded, looser = UncertaintyWeights(tasks, 0.05, max_factor=50.0), UncertaintyWeights(tasks, 0.05)
    for _ in range(5000):
        for each in (bounded, looser):
            each.learn({"gap": loss, "metal": 0.5}, {})
    learned = {name: weights.current["gap"] / (2.0 * 0.5) for name, weights in (("b", bounded), ("l", looser))}
    assert learned["b"] == pytest.approx(factor)
    assert abs(math.log(learned["l"])) > 2 * abs(math.log(factor))
    assert bounded.current["metal"] == looser.current["metal"]


def test_a_bound_holds_no_weight_back_that_should_leave_it():
    weights = UncertaintyWeights([task("gap")], 0.05, max_factor=50.0)
    for loss, factor in ((0.0, 50.0), (2.0, 0.5)):
        for _ in range(3000):
            weights.learn({"gap": loss}, {})
        assert weights.current["gap"] / 0.5 == pytest.approx(factor, rel=1e-2)


def test_log_variances_that_were_saved_without_bounds_are_put_into_them():
    tasks = [task("gap"), task("metal", "binary"), task("family", "class")]
    saved = torch.tensor([[-30.0, 2.0, 30.0], [0.1] * 3, [0.2] * 3, [7.0] * 3], dtype=torch.float64)
    weights = UncertaintyWeights(tasks, max_factor=100.0)
    weights.load({"uncertainty": saved})
    limit = math.log(100.0)
    expected = torch.cat([torch.tensor([[-limit, 2.0, limit]], dtype=torch.float64), saved[1:]])
    assert torch.equal(weights.state()["uncertainty"], expected)
    assert list(weights.current.values()) == pytest.approx([0.5 * 100, math.exp(-2.0), 1 / 100])


def test_a_run_from_before_there_were_bounds_goes_on(materials, train, lines):
    """Its config does not name them, and its checkpoint may lie beyond them."""
    same = options(materials, *RULES["uncertainty"], "checkpoint.every_steps=2")
    run = train("run", 1, *same, "max_time_s=1e-9")
    stopped = lines(run)[-1]["step"]
    before = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text("".join(each for each in before.splitlines(True) if "max_factor" not in each))
    assert (run / "config.yaml").read_text() != before
    train("run", 1, *same)
    assert lines(run)[-1]["step"] == 14 > stopped


def test_a_step_without_a_target_leaves_its_weight_alone():
    weights = UncertaintyWeights([task("gap"), task("metal", "binary")])
    before = weights.current["metal"]
    for _ in range(5):
        weights.learn({"gap": 2.0}, {})
    assert weights.current["metal"] == before
    assert weights.current["gap"] < 0.5
    assert weights.objective({"gap": 2.0}) == pytest.approx(
        2 * weights.current["gap"] + math.log(0.5 / weights.current["gap"]) / 2
    )


def test_gradient_norms_become_equal_and_weights_keep_their_mean():
    """Losses fall alike, and norms are a hundred times apart: weights make up for it, but for what the config wants."""
    weights = GradNormWeights([task("a"), task("b", weight=3.0), task("c")], 1, alpha=1.5)
    norms = {"a": 10.0, "b": 0.1, "c": 1.0}
    for step in range(200):
        weights.learn(dict.fromkeys(norms, 1 / (1 + step)), norms)
    learned = {"a": weights.current["a"], "b": weights.current["b"] / 3.0, "c": weights.current["c"]}
    assert sum(learned.values()) == pytest.approx(3.0, rel=1e-12)
    pulls = [learned[name] * norms[name] for name in norms]
    assert pulls == pytest.approx([pulls[0]] * 3, rel=1e-6)


@pytest.mark.parametrize(("alpha", "ratio"), [(0.0, 1.0), (1.0, 4.0), (1.5, 8.0)])
def test_targets_that_lag_behind_pull_more(alpha, ratio):
    """The loss of `slow` has fallen to a half, that of `fast` to an eighth: 4 times as much is left of it."""
    weights = GradNormWeights([task("fast"), task("slow")], 1, alpha)
    norms = {"fast": 1.0, "slow": 1.0}
    for _ in range(FIRST):
        weights.learn({"fast": 8.0, "slow": 8.0}, norms)
    for _ in range(2000):
        weights.learn({"fast": 1.0, "slow": 4.0}, norms)
    assert weights.current["slow"] / weights.current["fast"] == pytest.approx(ratio, rel=1e-6)


def test_a_target_of_rare_samples_is_not_judged_by_the_batches_without_them():
    """One batch in ten has all there is to learn of `rare`; in the mean both lose and pull the same."""
    weights = GradNormWeights([task("rare"), task("usual")], 1, 1.5)
    for step in range(400):
        rare = 10.0 if step % 10 == 0 else 1e-3
        weights.learn({"rare": rare, "usual": 1.0}, {"rare": rare / math.sqrt(10), "usual": 1.0})
        assert 0.3 < weights.current["rare"] / weights.current["usual"] < 3


def test_norms_that_say_nothing_change_no_weight():
    weights = GradNormWeights([task("a"), task("b")], 1, 1.5)
    for norms in ({"a": 0.0, "b": 1.0}, {"a": math.nan, "b": 1.0}, {"a": math.inf, "b": 1.0}, {}):
        weights.learn({"a": 1.0, "b": 1.0}, norms)
    assert weights.current == {"a": 1.0, "b": 1.0}


def options(materials: dict[str, Path], *more: str) -> tuple[str, ...]:
    folders = ", ".join(str(materials[name]) for name in ("perov_5", "3dsc", "symmetry"))
    targets = "heat_of_formation: {}, metal: {of: band_gap, below: 1.0e-3}, point_group: {weight: 0.5}, subgroups: {}"
    return (f"data.train=[{folders}]", f"targets={{{targets}}}", "steps=14", "batch.graphs=11", *more)


def learned(lines: list[dict]) -> None:
    """Weights begin at those of the config and do not stay there."""
    assert lines[0]["weights"] != lines[-1]["weights"]
    assert lines[-1]["weights"].keys() == lines[-1]["losses"].keys()


@pytest.mark.mpi
@pytest.mark.parametrize("rule", HARDER_FIRST)
def test_weights_are_the_same_on_any_number_of_ranks(materials, train, lines, rule):
    one = train("one", 1, *options(materials, *RULES[rule]))
    learned(lines(one))
    for name, ranks, *more in (
        ("two", 2, "parallel.backend=mpi"),
        ("three", 3, "parallel.bucket_mb=0.002"),
        ("parts", 1, "batch.micro_batches=3"),
        ("virtual", 2, "parallel.virtual_ranks=3"),
    ):
        other = train(name, ranks, *options(materials, *RULES[rule], *more))
        assert_same_run(lines, one, other, steps=14)
        for a, b in zip(lines(one), lines(other), strict=True):
            assert b["weights"] == pytest.approx(a["weights"], rel=1e-6)


@pytest.mark.mpi
@pytest.mark.parametrize("rule", HARDER_FIRST)
def test_virtual_ranks_learn_the_same_weights_to_the_last_bit(materials, train, lines, rule):
    same = options(materials, *RULES[rule], "parallel.reduction=ordered", "precision=float32")
    four, two = train("four", 4, *same), train("two", 2, *same, "parallel.virtual_ranks=2")
    learned(lines(four))
    assert [[line[key] for key in KEYS] for line in lines(two)] == [[line[key] for key in KEYS] for line in lines(four)]


@pytest.mark.mpi
@pytest.mark.parametrize("rule", HARDER_FIRST)
def test_a_resumed_run_has_the_weights_of_one_that_never_stopped(materials, train, lines, rule):
    same = options(materials, *RULES[rule])
    whole = train("whole", 2, *same)
    parts = train("parts", 2, *same, "max_time_s=1e-9")  # one step, then a stop
    stopped = lines(parts)[-1]["step"]
    assert stopped < 14
    train("parts", 2, *same)
    last = {line["step"]: [line[key] for key in KEYS] for line in lines(parts)}
    assert last == {line["step"]: [line[key] for key in KEYS] for line in lines(whole)}
    for kind in ("model", "course"):
        one, other = (
            load_file(max((run / "checkpoints").glob("step-*")) / f"{kind}.safetensors") for run in (whole, parts)
        )
        assert any(name.startswith("weighting|") for name in one) == (kind == "course")
        assert all(
            torch.equal(other[name], value) for name, value in one.items() if "weighting" in name or kind == "model"
        )


@pytest.mark.mpi
def test_other_weighting_and_what_does_not_go_with_it_are_refused(materials, train, config):
    run = train("run", 1, *options(materials), "steps=2")
    changed = run_ranks(1, "train", config, f"run_dir={run}", *options(materials, *RULES["gradnorm"]), "steps=3")
    assert changed.returncode == 2
    assert "another 'weighting'" in changed.stderr
    for given, said in {
        ("weighting={rate: 0.1}",): "rate is for weights that are learned",
        ("weighting={rule: gradnorm, rate: 2}",): "1 at most",
        (
            "weighting={max_factor: 50}",
        ): "max_factor is for weights that uncertainty learns: set rule to uncertainty, or",
        ("weighting={rule: fixed, max_factor: 50}",): "max_factor is for weights that uncertainty learns",
        ("weighting={rule: gradnorm, max_factor: 50}",): "max_factor is for weights that uncertainty learns",
        ("weighting={rule: uncertainty, alpha: 0}",): "alpha is for weights that gradnorm learns",
        ("weighting={every_steps: 5}",): "every_steps is for weights that gradnorm learns",
        ("weighting={rule: uncertainty, max_factor: 1}",): "greater than 1",
        ("weighting={rule: gradnrom}",): "gradnorm",
        ("weighting.rule=gradnorm", "optimize=compile"): "set optimize: none",
    }.items():
        with pytest.raises(UserInputError, match=said):
            load_config(TrainConfig, config, given)


@pytest.mark.parametrize("rule", ["fixed", "uncertainty", "gradnorm"])
def test_the_config_that_a_run_writes_is_read_again(rule, config, tmp_path):
    """It spells out defaults, those of other rules, too."""
    first = load_config(TrainConfig, config, [f"weighting.rule={rule}"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(first))
    assert "max_factor" in path.read_text()
    assert load_config(TrainConfig, path) == first
