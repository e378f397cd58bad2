import numpy as np
import pytest
from array_sizes import ArraySizes

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.divide import divide, imbalance
from matsci_hpc.loading.forecast import add_up, forecast_balance
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import plan_spec
from matsci_hpc.scaling import loads as module
from matsci_hpc.scaling.loads import for_ranks, look_at_loads, shares_of


def config_of(batch, **more):
    return TrainConfig.model_validate({"run_dir": "r", "steps": 5, "batch": batch, "data": {"train": ["a"]}} | more)


@pytest.fixture(scope="module")
def sizes():
    random = np.random.default_rng(4)
    atoms = random.lognormal(3, 0.7, 3000).astype(int) + 1
    return ArraySizes(atoms, 40 * atoms)


def test_every_step_is_divided_as_in_the_run(sizes, monkeypatch):
    monkeypatch.setattr(module, "MOST_STEPS", 1000)
    config = config_of({"graphs": 100})
    found = look_at_loads(config, sizes, 7)
    epoch = Plan(sizes, plan_spec(config, sizes)).epoch(0)
    assert (found.samples, found.steps, found.graphs) == (3000, 30, 100)
    assert found.loads.shape == (30, 7)
    for step in range(30):
        samples = epoch.batch(step)
        costs = COST.of(sizes.atoms(samples), sizes.edges(samples))
        shares = divide(costs, 7)
        assert found.loads[step].max() / found.loads[step].mean() == pytest.approx(imbalance(costs, shares))
        assert found.loads[step].sum() == pytest.approx(costs.sum())
    assert found.planning_s > 0


def test_it_agrees_with_the_plan_command(sizes):
    config = config_of({"graphs": 96, "grouping": "none"})
    spec = plan_spec(config, sizes)
    plan = forecast_balance(sizes, spec, add_up(sizes, Plan(sizes, spec)), 32)
    found = look_at_loads(config, sizes, 32)
    assert found.steps == plan.steps == found.loads.shape[0]  # all 32 steps are looked at by both
    assert 1 / found.imbalance == pytest.approx(plan.time_weighted)


def test_grouping_is_decided_as_in_the_run(sizes):
    found = look_at_loads(config_of({"graphs": 64}), sizes, 64)
    assert found.group_above is not None
    assert look_at_loads(config_of({"graphs": 64, "grouping": "none"}), sizes, 64).group_above is None
    assert found.imbalance < look_at_loads(config_of({"graphs": 64, "grouping": "none"}), sizes, 64).imbalance


def test_virtual_ranks_count_where_grouping_is_decided(sizes):
    real = look_at_loads(config_of({"graphs": 64}), sizes, 64)
    virtual = look_at_loads(config_of({"graphs": 64}, parallel={"virtual_ranks": 16}), sizes, 4)
    assert virtual.group_above == real.group_above is not None


def test_many_ranks_are_looked_at_in_few_steps(sizes, monkeypatch):
    monkeypatch.setattr(module, "MOST_SAMPLES", 400)
    found = look_at_loads(config_of({"graphs": 100}), sizes, 4096)
    assert found.loads.shape == (4, 4096)
    assert found.idle == pytest.approx(1 - 100 / 4096)


def test_batches_cut_by_cost(sizes):
    found = look_at_loads(config_of({"cost": 2e5}), sizes, 3)
    assert found.loads.sum(axis=1).max() <= 2e5
    assert found.steps == pytest.approx(
        COST.of(sizes.atoms(np.arange(3000)), sizes.edges(np.arange(3000))).sum() / 2e5, 0.1
    )


def test_weak_scaling_keeps_the_batch_of_a_rank():
    config = config_of({"graphs": 64})
    assert for_ranks(config, 32, 2, weak=True).batch.graphs == 1024
    assert for_ranks(config, 32, 2, weak=False) == config
    assert for_ranks(config_of({"cost": 1e5}), 6, 2, weak=True).batch.cost == pytest.approx(3e5)
    with pytest.raises(UserInputError, match="no whole number"):
        for_ranks(config_of({"graphs": 3}), 3, 2, weak=True)
    with pytest.raises(UserInputError, match="alike"):
        for_ranks(config_of({"graphs": 8}, balance={"speeds": [1, 2]}), 2, 2, weak=False)


def test_shares_of_a_trial_are_those_of_the_ranks_in_turn(sizes):
    config = config_of({"graphs": 100})
    epoch = Plan(sizes, plan_spec(config, sizes)).epoch(0)
    shares = shares_of(config, sizes, 4)
    for step in range(6):
        samples = epoch.batch(step)
        costs = COST.of(sizes.atoms(samples), sizes.edges(samples))
        assert next(shares).tolist() == samples[divide(costs, 4)[step % 4]].tolist()
    # Where ranks outnumber samples, only those that have some are taken, epoch after epoch.
    few = shares_of(config_of({"graphs": 1}), sizes, 50)
    assert all(len(next(few)) == 1 for _ in range(100))


def test_as_many_ranks_as_can_be_asked_for():
    random = np.random.default_rng(6)
    atoms = random.integers(2, 60, 200_000)
    config = for_ranks(config_of({"graphs": 4, "grouping": "none"}), 65_536, 2, weak=True)
    found = look_at_loads(config, ArraySizes(atoms, 40 * atoms), 65_536)
    assert found.loads.shape == (2, 65_536)
    assert found.steps == 2
    assert found.loads.sum() == pytest.approx(COST.of(atoms, 40 * atoms).sum())
    assert found.imbalance > 1
