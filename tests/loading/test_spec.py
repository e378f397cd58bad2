from fractions import Fraction

import numpy as np
import pytest
from array_sizes import ArraySizes

from matsci_hpc.config.data import Data
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.loading import grouping
from matsci_hpc.loading.grouping import GOAL, resolve_grouping, try_thresholds
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.spec import PlanSpec, plan_spec, repeats


def config_of(data, **sections):
    return TrainConfig.model_validate({"run_dir": "r", "steps": 5, "batch": {"graphs": 8}, "data": data} | sections)


def test_plain_paths_are_seen_once():
    assert repeats(Data(train=["a", "b"]), [10, 1000]) == (1, 1)


def test_stated_repeats_are_exact():
    data = Data.model_validate({"train": [{"path": "a", "repeat": 2.1}, "b", {"path": "c", "repeat": 0.25}]})
    assert repeats(data, [10, 1000, 7]) == (Fraction(21, 10), 1, Fraction(1, 4))


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 1, 0.5), (0.2, 0.2, 9)])
def test_weights_are_the_shares_of_an_epoch_and_cut_no_data_set(weights):
    counts = [300, 40, 1700]
    data = [{"path": str(i), "weight": weight} for i, weight in enumerate(weights)]
    sizes = ArraySizes(np.ones(sum(counts)), np.ones(sum(counts)), counts)
    spec = plan_spec(config_of({"train": data}), sizes)
    assert min(spec.repeats) == 1
    plan = Plan(sizes, spec)
    in_epoch = np.array(plan.counts(0))
    assert in_epoch / in_epoch.sum() == pytest.approx(np.array(weights) / sum(weights), abs=2 / sum(counts))
    epoch = plan.epoch(0)
    seen = np.concatenate([epoch.batch(step) for step in range(epoch.steps)])
    assert np.bincount(np.searchsorted([300, 340], seen, side="right")).tolist() == in_epoch.tolist()
    assert len(set(seen.tolist())) == sum(counts)


@pytest.mark.parametrize(("temperature", "share"), [(1, 10 / 1010), (2, 10**0.5 / (10**0.5 + 1000**0.5)), (1e9, 0.5)])
def test_temperature_evens_out_the_shares(temperature, share):
    small, large = repeats(Data(train=["a", "b"], temperature=temperature), [10, 1000])
    assert 10 * small / (10 * small + 1000 * large) == pytest.approx(share, rel=1e-4)
    assert large == 1


def test_a_data_set_without_the_split_does_not_matter():
    data = Data.model_validate(
        {"train": [{"path": "a", "weight": 1}, {"path": "b", "weight": 3}, {"path": "c", "weight": 1}]}
    )
    assert repeats(data, [10, 0, 20]) == (2, 0, 1)


def test_the_spec_takes_every_option_of_the_config():
    data = {"train": ["a"], "block": 16, "split": "test"}
    batch = {"cost": 5e4, "oversized": {"cost": 900, "policy": "skip"}}
    sizes = ArraySizes(np.ones(10), np.ones(10))
    spec = plan_spec(config_of(data, batch=batch, seed=2**63 - 1), sizes, group_above=70.0)
    assert spec == PlanSpec(
        seed=2**63 - 1, split="test", cost=5e4, block=16, group_above=70.0,
        oversized_cost=900, oversized_policy="skip", repeats=(Fraction(1),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tailed():
    """Sizes with a few samples far above the others."""
    rng = np.random.default_rng(0)
    atoms = np.ceil(rng.lognormal(2.0, 1.0, 30_000)).astype(np.int64)
    return ArraySizes(atoms, atoms * 50)


def test_auto_groups_only_where_ranks_would_idle(tailed):
    few = PlanSpec(1, "train", graphs=4 * 64)
    assert resolve_grouping(tailed, few, grouping.MIN_RANKS - 1) is None
    assert resolve_grouping(tailed, few, 64, "none") is None
    assert resolve_grouping(tailed, PlanSpec(1, "train", graphs=64 * 64), 64) is None
    threshold = resolve_grouping(tailed, few, 64)
    trials = try_thresholds(tailed, few, 64)
    assert threshold == trials[-1].group_above
    assert trials[-1].efficiency >= GOAL > max(trial.efficiency for trial in trials[:-1])
    assert [trial.share for trial in trials] == [0.0, *grouping.SHARES][: len(trials)]
    assert resolve_grouping(tailed, few, 8, "similar") is not None


def test_the_best_is_taken_where_nothing_reaches_the_goal(tailed):
    spec = PlanSpec(1, "train", graphs=80)
    trials = try_thresholds(tailed, spec, 100)
    assert max(trial.efficiency for trial in trials) < GOAL
    best = max(trials, key=lambda trial: trial.efficiency)
    assert resolve_grouping(tailed, spec, 100) == best.group_above
