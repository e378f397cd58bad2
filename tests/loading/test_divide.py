import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matsci_hpc.loading.cost import CostFit, CostModel, fit
from matsci_hpc.loading.divide import divide, evaluation_share, imbalance, micro_batches

costs_of = st.lists(st.floats(min_value=1, max_value=1e6), min_size=1, max_size=200).map(np.array)
speeds_of = st.lists(st.sampled_from([1.0, 1.5, 4.0, 8.0]), min_size=1, max_size=40)


@given(costs_of, st.integers(1, 40))
def test_division_gives_each_sample_to_one_rank(costs, ranks):
    shares = divide(costs, ranks)
    assert len(shares) == ranks
    assert sorted(np.concatenate(shares)) == list(range(len(costs)))
    assert all((np.diff(share) > 0).all() for share in shares)


@given(costs_of, st.integers(1, 40))
def test_division_keeps_grahams_bound(costs, ranks):
    # The best largest load is at least the mean load and at least the largest sample.
    best = max(costs.sum() / ranks, costs.max())
    largest = max(costs[share].sum() for share in divide(costs, ranks))
    # A list schedule of any order ends at most (1 - 1/ranks) of the largest sample above the mean.
    assert largest <= costs.sum() / ranks + (1 - 1 / ranks) * costs.max() + 1e-6 * best


def by_heap(costs, ranks):
    """LPT as it is written in books: the next largest sample to the least loaded rank, of those the first."""
    heap = [(0.0, rank) for rank in range(ranks)]
    owner = np.empty(len(costs), dtype=np.int64)
    for position in np.argsort(-costs, kind="stable"):
        load, rank = heap[0]
        owner[position] = rank
        heapq.heapreplace(heap, (load + float(costs[position]), rank))
    return [np.flatnonzero(owner == rank) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [3, 64, 200, 700])
@pytest.mark.parametrize("spread", ["equal", "whole", "even", "normal", "heavy"])
def test_division_in_turns_is_that_of_a_heap(ranks, spread):
    random = np.random.default_rng(ranks)
    for count in (ranks // 2, ranks, 9 * ranks + 5):
        costs = {
            "equal": lambda count=count: np.full(count, 7.0),
            "whole": lambda count=count: random.integers(1, 6, count).astype(float),
            "even": lambda count=count: random.uniform(1, 2, count),
            "normal": lambda count=count: random.lognormal(7, 1, count),
            "heavy": lambda count=count: random.pareto(0.8, count) + 1,
        }[spread]()
        for share, expected in zip(divide(costs, ranks), by_heap(costs, ranks), strict=True):
            assert share.tolist() == expected.tolist()


@given(costs_of, st.integers(1, 40))
def test_imbalance_is_the_largest_over_the_mean_load(costs, ranks):
    shares = divide(costs, ranks)
    loads = [costs[share].sum() for share in shares]
    assert imbalance(costs, shares) == pytest.approx(max(loads) / np.mean(loads))


@given(costs_of, speeds_of)
def test_division_by_speed_gives_each_sample_to_the_rank_that_would_finish_first(costs, speeds):
    shares = divide(costs, len(speeds), speeds)
    assert sorted(np.concatenate(shares)) == list(range(len(costs)))
    finish = [costs[share].sum() / speed for share, speed in zip(shares, speeds, strict=True)]
    smallest = costs.min()
    last = int(np.argmax(finish))
    # Had another rank been faster with the last sample of the slowest one, it would have got it.
    for rank, speed in enumerate(speeds):
        if len(speeds) > 1 and len(shares[last]):
            least = costs[shares[last]].min()
            assert (costs[shares[rank]].sum() + least) / speed >= finish[last] * (1 - 1e-9) - 1e-9 * smallest


def test_equal_speeds_divide_as_none():
    costs = np.random.default_rng(0).lognormal(7, 1.0, 300)
    for one, other in zip(divide(costs, 7), divide(costs, 7, [2.5] * 7), strict=True):
        assert np.array_equal(one, other)


def test_fast_ranks_get_their_part():
    costs = np.random.default_rng(0).lognormal(mean=7, sigma=1.0, size=2000)
    speeds = [4.0, 4.0, 1.0]
    shares = divide(costs, 3, speeds)
    loads = np.array([costs[share].sum() for share in shares])
    assert loads / loads.sum() == pytest.approx(np.array(speeds) / 9, rel=0.01)
    assert imbalance(costs, shares, speeds) < 1.01
    assert imbalance(costs, divide(costs, 3), speeds) > 2.5


def test_division_balances_skewed_sizes_better_than_counting():
    rng = np.random.default_rng(0)
    costs = rng.lognormal(mean=7, sigma=1.2, size=512)
    by_count = [np.arange(i, 512, 16) for i in range(16)]
    assert imbalance(costs, divide(costs, 16)) < 1.02 < imbalance(costs, by_count)


@given(costs_of, st.integers(1, 12), st.none() | st.floats(min_value=1, max_value=1e6))
def test_micro_batches_hold_each_sample_once_and_keep_the_limit(costs, count, max_cost):
    parts = micro_batches(costs, count, max_cost)
    assert sorted(np.concatenate(parts)) == list(range(len(costs)))
    assert all(len(part) for part in parts)
    assert len(parts) >= min(count, len(costs))
    if max_cost is None:
        assert len(parts) == min(count, len(costs))
    else:
        assert all(costs[part].sum() <= max_cost * (1 + 1e-12) or len(part) == 1 for part in parts)


def test_nothing_needs_no_micro_batch():
    assert micro_batches(np.empty(0), 3) == []
    assert [len(share) for share in divide(np.empty(0), 3)] == [0, 0, 0]
    assert imbalance(np.empty(0), divide(np.empty(0), 3)) == 1.0


@given(costs_of, st.integers(1, 12), st.floats(min_value=1, max_value=1e6))
def test_evaluation_counts_each_sample_once(costs, ranks, max_cost):
    batches = [batch for rank in range(ranks) for batch in evaluation_share(costs, rank, ranks, max_cost)]
    assert sorted(np.concatenate(batches)) == list(range(len(costs)))
    assert all(costs[batch].sum() <= max_cost + 1e-6 or len(batch) == 1 for batch in batches)


def test_cost_grows_with_atoms_and_edges():
    cost = CostModel().of(np.array([1, 2, 1], dtype=np.uint32), np.array([10, 10, 11], dtype=np.uint32))
    assert cost[0] < cost[2] < cost[1]


def measured(edge_s, atom_s, constant_s, *, noise=0.05, count=400, seed=0, edges_per_atom=None):
    """Sums over the ranks of a run whose steps take so long."""
    rng = np.random.default_rng(seed)
    ranks = [CostFit() for _ in range(4)]
    for i in range(count):
        atoms = int(rng.integers(100, 3000))
        edges = atoms * (edges_per_atom or int(rng.integers(5, 60)))
        time_s = (edge_s * edges + atom_s * atoms + constant_s) * (1 + noise * rng.normal())
        ranks[i % 4].add(atoms, edges, time_s)
    return sum(each.sums for each in ranks)


@pytest.mark.parametrize(
    ("edge_s", "atom_s", "constant_s"), [(1e-6, 3e-5, 2e-3), (1e-6, 1e-5, 0.0), (2e-7, 1.2e-5, 5e-3), (1e-6, 0.0, 1e-3)]
)
def test_the_fit_finds_the_true_costs_in_noisy_times(edge_s, atom_s, constant_s):
    found = fit(measured(edge_s, atom_s, constant_s))
    assert found.edge == 1.0
    assert found.atom == pytest.approx(atom_s / edge_s, rel=0.15, abs=3)
    assert found.atom == float(f"{found.atom:.2g}")


def test_the_fit_is_exact_without_noise():
    assert fit(measured(1e-6, 3.14159e-5, 2e-3, noise=0.0)).atom == 31.0


@pytest.mark.parametrize(
    "sums",
    [
        CostFit().sums,
        measured(1e-6, 3e-5, 2e-3, count=3),
        measured(1e-6, 3e-5, 2e-3, edges_per_atom=40),
        measured(1e-6, 3e-5, 2e-3, noise=3.0, count=40),
        measured(0.0, 0.0, 1e-2),
        measured(1e-6, float("nan"), 2e-3),
    ],
    ids=["no steps", "few steps", "one proportion", "noise alone", "a constant alone", "no number"],
)
def test_times_that_tell_nothing_give_no_fit(sums):
    assert fit(sums) is None
