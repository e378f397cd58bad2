from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from array_sizes import ArraySizes
from hypothesis import given, settings
from hypothesis import strategies as st

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading import plan as plan_module
from matsci_hpc.loading.oversized import judge_oversized
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import PlanSpec


def skewed(counts, seed=0):
    rng = np.random.default_rng(seed)
    atoms = np.ceil(rng.lognormal(2.5, 1.0, sum(counts))).astype(np.uint32)
    return ArraySizes(atoms, (atoms * rng.integers(5, 60, len(atoms))).astype(np.uint32), counts)


def costs_of(sizes, samples):
    return COST.of(sizes.atoms(samples), sizes.edges(samples))


def everything(epoch):
    return [epoch.batch(step) for step in range(epoch.steps)]


specs = st.builds(
    PlanSpec,
    seed=st.integers(0, 2**63 - 1),
    split=st.just("train"),
    graphs=st.integers(1, 40),
    block=st.sampled_from([1, 3, 16]),
    group_above=st.sampled_from([None, 0.0, 500.0, 2000.0, 1e9]),
    oversized_cost=st.sampled_from([None, 1500.0]),
    oversized_policy=st.sampled_from(["keep", "skip"]),
) | st.builds(
    PlanSpec,
    seed=st.integers(0, 2**63 - 1),
    split=st.just("train"),
    cost=st.sampled_from([1.0, 1500.0, 10_000.0, 1e8]),
    block=st.sampled_from([1, 3, 16]),
    group_above=st.sampled_from([None, 0.0, 500.0, 2000.0, 1e9]),
    oversized_cost=st.sampled_from([None, 1500.0]),
    oversized_policy=st.sampled_from(["keep", "skip"]),
)


@given(specs, st.lists(st.integers(0, 150), min_size=1, max_size=4).filter(any), st.data())
@settings(deadline=None, max_examples=150)
def test_every_occurrence_once_per_epoch(spec, counts, data):
    sizes = skewed(counts)
    spec = replace(spec, repeats=tuple(data.draw(st.sampled_from([Fraction(1), Fraction(3)])) for _ in counts))
    plan = Plan(sizes, spec)
    every = np.arange(sum(counts))
    times = np.repeat([int(r) for r in spec.repeats], counts)
    if spec.oversized_cost is not None:
        large = costs_of(sizes, every) > spec.oversized_cost
        assert np.array_equal(plan.oversized, every[large])
        times = times * ~large if spec.oversized_policy == "skip" else times
    for number in (0, 1):
        epoch = plan.epoch(number)
        batches = everything(epoch)
        assert np.array_equal(np.sort(np.concatenate([every[:0], *batches])), np.repeat(every, times))
        assert all(len(batch) and (np.diff(batch) >= 0).all() for batch in batches)
        assert epoch.samples == sum(map(len, batches)) == times.sum()
        assert [epoch.samples_before(i) for i in range(len(batches))] == [0, *np.cumsum([*map(len, batches)])][:-1]
        assert not epoch.has(epoch.steps)


@given(specs)
@settings(deadline=None, max_examples=40)
def test_steps_can_be_asked_for_in_any_order(spec):
    sizes = skewed([300, 50])
    plan = Plan(sizes, replace(spec, oversized_cost=None))
    expected = everything(plan.epoch(5))
    again = Plan(sizes, plan.spec).epoch(5)
    for step in np.random.default_rng(0).permutation(len(expected))[:30]:
        assert np.array_equal(again.batch(int(step)), expected[step])


@pytest.fixture
def small_windows(monkeypatch):
    """Several windows in an epoch of a few hundred samples."""
    monkeypatch.setattr(plan_module, "WINDOW_STEPS", 8)
    monkeypatch.setattr(plan_module, "MIN_WINDOW_STEPS", 2)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("above", [None, 800.0])
@pytest.mark.parametrize("limits", [{"graphs": 8}, {"cost": 6000.0}])
def test_windows_join_without_a_gap(limits, above):
    sizes = skewed([900])
    epoch = Plan(sizes, PlanSpec(3, "train", group_above=above, **limits)).epoch(1)
    batches = everything(epoch)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(900))
    order = np.random.default_rng(0).permutation(len(batches))
    assert all(np.array_equal(epoch.batch(int(i)), batches[i]) for i in order)
    if "graphs" in limits:
        assert [len(batch) for batch in batches] == [8] * 112 + [4]
    else:
        short = [batch for batch in batches if costs_of(sizes, batch).sum() < 0.5 * 6000 and len(batch) > 1]
        assert len(short) <= 0.1 * len(batches)


def test_order_depends_on_seed_and_epoch_alone():
    sizes = skewed([500])
    plan = Plan(sizes, PlanSpec(3, "train", graphs=32))
    fresh = Plan(sizes, PlanSpec(3, "train", graphs=32))
    assert all(np.array_equal(a, b) for a, b in zip(everything(plan.epoch(4)), everything(fresh.epoch(4)), strict=True))
    assert not np.array_equal(plan.epoch(4).batch(0), plan.epoch(5).batch(0))
    other = Plan(sizes, PlanSpec(4, "train", graphs=32))
    assert not np.array_equal(plan.epoch(4).batch(0), other.epoch(4).batch(0))


@pytest.mark.parametrize("above", [None, 700.0])
def test_a_cost_budget_is_kept_and_used(above):
    sizes = skewed([3000])
    budget = 20_000.0
    batches = everything(Plan(sizes, PlanSpec(3, "train", cost=budget, group_above=above)).epoch(0))
    sums = np.array([costs_of(sizes, batch).sum() for batch in batches])
    alone = np.array([len(batch) == 1 for batch in batches])
    assert (sums[~alone] <= budget).all()
    assert np.median(sums) > 0.9 * budget


def test_without_grouping_no_sample_that_fits_is_left_for_the_next_step():
    sizes = skewed([2000])
    epoch = Plan(sizes, PlanSpec(3, "train", cost=20_000.0)).epoch(0)
    drawn = epoch.draw(0, 2000)
    place = 0
    for batch in everything(epoch)[:-1]:
        assert np.array_equal(np.sort(drawn[place : place + len(batch)]), batch)
        place += len(batch)
        assert costs_of(sizes, np.append(batch, drawn[place])).sum() > 20_000.0


def test_groups_hold_their_own_kind_and_are_spread():
    sizes = skewed([4096])
    threshold = float(np.quantile(costs_of(sizes, np.arange(4096)), 0.9))
    plan = Plan(sizes, PlanSpec(3, "train", graphs=32, group_above=threshold))
    firsts = []
    for number in (0, 1):
        batches = everything(plan.epoch(number))
        least = np.array([costs_of(sizes, batch).min() for batch in batches])
        most = np.array([costs_of(sizes, batch).max() for batch in batches])
        large = most > threshold
        assert large.sum() == 13  # 410 samples above the 0.9 quantile, 32 a step
        assert (least[large] > threshold).sum() == 12  # the thirteenth is filled up with the next largest
        places = np.flatnonzero(large)
        assert places.max() - places.min() > 64
        firsts.append(places)
    assert not np.array_equal(*firsts)


@pytest.mark.usefixtures("small_windows")
def test_groups_meet_others_in_each_epoch():
    sizes = skewed([4096])
    threshold = float(np.quantile(costs_of(sizes, np.arange(4096)), 0.9))
    plan = Plan(sizes, PlanSpec(3, "train", graphs=8, group_above=threshold))
    largest = int(costs_of(sizes, np.arange(4096)).argmax())
    company = [next(set(b.tolist()) for b in everything(plan.epoch(e)) if largest in b) for e in range(3)]
    assert len(company[0] | company[1] | company[2]) > 15


def test_blocks_are_drawn_together():
    sizes = skewed([3200])
    batches = everything(Plan(sizes, PlanSpec(3, "train", graphs=320, block=32)).epoch(0))
    for batch in batches:
        runs = 1 + int((np.diff(batch) != 1).sum())
        assert runs <= 13  # ten blocks, two cut by the borders of the step, one by the end of the data
    spread = [len(set((batch // 320).tolist())) for batch in batches]
    assert min(spread) > 3


def test_oversized_samples_are_named_or_counted():
    sizes = ArraySizes(np.array([1, 100, 2, 200, 300, 400]), np.array([10, 5000, 20, 7000, 8000, 9000]))
    spec = PlanSpec(3, "train", graphs=2, oversized_cost=7000.0)
    plan = Plan(sizes, spec)
    assert plan.oversized.tolist() == [1, 3, 4, 5]
    with pytest.raises(
        UserInputError, match=r"4 samples above .* = 7,000: s1 \(100 atoms, 5,000 edges, cost 8,000\)"
    ) as e:
        judge_oversized(sizes, spec, plan.oversized, COST, lambda sample: f"s{sample}")
    assert "s4" in str(e.value)
    assert "s5" not in str(e.value)
    assert "and 1 more" in str(e.value)
    for policy, word in (("keep", "trained on all the same"), ("skip", "left out of every epoch")):
        warning = judge_oversized(sizes, replace(spec, oversized_policy=policy), plan.oversized, COST, str)
        assert word in warning
    assert judge_oversized(sizes, spec, plan.oversized[:0], COST, str) is None


def test_a_step_of_the_run_is_found_without_gaps():
    sizes = skewed([100, 60])
    for limits in ({"graphs": 7}, {"cost": 5000.0}):
        plan = Plan(sizes, PlanSpec(3, "train", repeats=(Fraction(1), Fraction(3, 2)), **limits))
        lengths = [plan.epoch(e).steps for e in range(3)]
        expected = [(e, i) for e, length in enumerate(lengths) for i in range(length)]
        assert [plan.locate(step) for step in range(len(expected))] == expected
        seen = [plan.samples_before(step) for step in range(len(expected) + 1)]
        assert np.diff(seen).tolist() == [len(plan.epoch(e).batch(i)) for e, i in expected]


def test_steps_beyond_the_epoch_are_refused():
    epoch = Plan(skewed([10]), PlanSpec(3, "train", graphs=4)).epoch(0)
    for step in (-1, 3):
        with pytest.raises(IndexError):
            epoch.batch(step)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.lists(st.fractions(Fraction(1, 7), 4, max_denominator=7), min_size=4, max_size=4),
    st.sampled_from([1, 4]),
)
@settings(deadline=None, max_examples=60)
def test_parts_of_data_sets_add_up(counts, repeats, block):
    """Over as many epochs as the denominator of r, each sample of a data set is seen exactly r times as often."""
    spec = PlanSpec(9, "train", graphs=16, block=block, repeats=tuple(repeats[: len(counts)]))
    plan = Plan(ArraySizes(np.ones(sum(counts)), np.ones(sum(counts)), counts), spec)
    first = 0
    for count, repeat in zip(counts, spec.repeats, strict=True):
        seen = Counter()
        for number in range(repeat.denominator):
            epoch = [
                s for batch in everything(plan.epoch(number)) for s in batch.tolist() if first <= s < first + count
            ]
            each = Counter(epoch)
            assert all(int(repeat) <= each[s] <= int(repeat) + 1 for s in range(first, first + count))
            seen += each
        assert [seen[s] for s in range(first, first + count)] == [repeat.numerator] * count
        first += count
