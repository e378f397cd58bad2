import math

import numpy as np
import pytest

from matsci_hpc.scaling.communication import Network, all_reduce_time
from matsci_hpc.scaling.exposure import Bucket
from matsci_hpc.scaling.link import Link
from matsci_hpc.scaling.loads import Loads
from matsci_hpc.scaling.noise import largest_of
from matsci_hpc.scaling.prediction import Storage, predict, step_parts
from matsci_hpc.scaling.step_cost import Line, StepCost

FREE = Link(0.0, math.inf)


def cost_of(*, fixed_s=0.0, noise=0.0, optimizer_s=0.0, input_s=0.0, buckets=(), shares=(1.0, 1e9)):
    return StepCost(
        line=Line(fixed_s, 1e-6, 0.0, fixed_known=True),
        optimizer_s=optimizer_s,
        input=Line(0.0, input_s, 0.0, fixed_known=True),
        buckets=buckets,
        sum_bytes_per_s=math.inf,
        noise=noise,
        shares=shares,
        steps=10,
        source="a test",
    )


def loads_of(rows, *, steps=10, samples=1000, planning_s=0.0):
    rows = np.array(rows, dtype=float)
    return Loads(rows.shape[1], samples, steps, None, rows, samples / steps, planning_s)


def network(ranks, link=FREE, per_node=1):
    return Network(ranks, per_node, link, link)


def even(ranks, total=1e6, **more):
    return loads_of([[total / ranks] * ranks], **more)


def test_perfect_ranks_have_perfect_efficiency():
    ranks = (2, 8, 64)
    found = predict(cost_of(), [even(each) for each in ranks], [network(each) for each in ranks])
    assert [each.efficiency for each in found] == pytest.approx([1, 1, 1])
    assert [each.step_s for each in found] == pytest.approx([1 / each for each in ranks])
    assert [each.limit for each in found] == ["compute"] * 3
    assert found[1].epoch_s == pytest.approx(10 / 8)
    assert found[1].node_hours == pytest.approx(10 / 8 / 3600 * 8)
    assert found[1].graphs_per_s == pytest.approx(1000 / found[1].epoch_s)


def test_what_does_not_shrink_is_the_law_of_amdahl():
    ranks = (1, 4, 16)
    cost = cost_of(fixed_s=0.03, optimizer_s=0.02)
    found = predict(cost, [even(each) for each in ranks], [network(each) for each in ranks])
    expected = [(1 + 0.05) / (each * (1 / each + 0.05)) for each in ranks]
    assert [each.efficiency for each in found] == pytest.approx(expected)
    assert [each.limit for each in found] == ["compute", "fixed", "fixed"]
    # Weak scaling: the batch grows, an epoch has fewer steps, and nothing is lost.
    grown = [even(each, total=1e6 * each, steps=160 // each) for each in ranks]
    weak = predict(cost, grown, [network(each) for each in ranks])
    assert [each.efficiency for each in weak] == pytest.approx([1, 1, 1])


def test_a_step_waits_for_the_largest_share():
    parts = step_parts(cost_of(), loads_of([[1e5, 3e5], [2e5, 2e5]]), network(2))
    assert parts.compute == pytest.approx(0.2)
    assert parts.imbalance == pytest.approx(0.05)
    assert parts.total == pytest.approx(0.25)
    assert parts.limit == "imbalance"


def test_idle_ranks_take_no_fixed_time_but_the_others_do():
    parts = step_parts(cost_of(fixed_s=0.01), loads_of([[1e5, 0, 0, 0]]), network(4))
    assert parts.total == pytest.approx(0.11)


def test_noise_grows_with_the_ranks():
    found = [step_parts(cost_of(noise=0.1), loads_of([[1e5] * ranks]), network(ranks)) for ranks in (1, 8, 512)]
    expected = [0.1 * 0.1 * largest_of(ranks) for ranks in (1, 8, 512)]
    assert [each.noise for each in found] == pytest.approx(expected, abs=2e-5)
    assert found[-1].limit == "noise"


@pytest.mark.parametrize(("link", "limit"), [(Link(0.01, 1e12), "latency"), (Link(1e-9, 1e7), "bandwidth")])
def test_the_network_is_named(link, limit):
    cost = cost_of(buckets=(Bucket(1e6, 0.5), Bucket(1e6, 0.0)))
    parts = step_parts(cost, even(16), network(16, link))
    assert parts.limit == limit
    without = step_parts(cost, even(16), network(16, link), overlap=False)
    assert without.total > parts.total
    both_s = 2 * all_reduce_time(1e6, network(16, link)).total_s
    last_s = all_reduce_time(16.0, network(16, link)).total_s
    assert without.total == pytest.approx(1 / 16 + both_s + last_s)


def test_input_counts_where_it_is_slower_than_the_rest():
    slow = step_parts(cost_of(input_s=1e-7), even(4, planning_s=0.5), network(4))
    assert slow.total == pytest.approx(0.5 + 0.025)
    assert slow.limit == "input"
    assert step_parts(cost_of(input_s=1e-7), even(4, planning_s=0.1), network(4)).input == 0
    # 100 graphs of a step, 1 MB each, by 100 MB/s.
    stored = step_parts(cost_of(), even(4), network(4), storage=Storage(1e8, 1e6))
    assert stored.total == pytest.approx(1.0)


def test_shares_beyond_the_measured_ones_are_told():
    cost = cost_of(shares=(1e5, 3e5))
    found = predict(cost, [even(each) for each in (2, 4, 64)], [network(each) for each in (2, 4, 64)])
    assert [each.extrapolated for each in found] == [True, False, True]
