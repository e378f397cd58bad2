import math

import pytest

from matsci_hpc.scaling.communication import ALGORITHMS, Network, all_reduce_time
from matsci_hpc.scaling.exposure import Bucket, exposed_time
from matsci_hpc.scaling.fabrics import FABRICS
from matsci_hpc.scaling.link import Link

ALPHA, RATE, ADD = 2e-6, 1e9, 4e9
LINK = Link(ALPHA, RATE)


def network(ranks, per_node=1, **more):
    return Network(ranks, per_node, Link(1e-6, 5e9), LINK, **more)


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_the_formulas_of_the_paper(ranks):
    n, rounds = 3e6, math.log2(ranks)
    flat = network(ranks, sum_bytes_per_s=ADD)
    share = (ranks - 1) / ranks
    expected = {
        "ring": 2 * (ranks - 1) * ALPHA + 2 * share * n / RATE + share * n / ADD,
        "tree": rounds * (ALPHA + n / RATE + n / ADD),
        "halving": 2 * rounds * ALPHA + 2 * share * n / RATE + share * n / ADD,
    }
    for algorithm, time_s in expected.items():
        assert all_reduce_time(n, flat, algorithm).total_s == pytest.approx(time_s, rel=1e-12)


def test_a_number_that_is_no_power_of_two_folds_the_others_in():
    n = 1e6
    five, four = (all_reduce_time(n, network(ranks), "tree").total_s for ranks in (5, 4))
    assert five == pytest.approx(four + 2 * LINK.message_s(n))


def test_one_rank_sends_nothing():
    assert all_reduce_time(1e9, network(1)).total_s == 0
    assert exposed_time([Bucket(1e9, 0.0)], 1.0, network(1)).total_s == 0


def test_two_levels_are_rings_around_an_exchange_of_parts():
    n = 8e6
    found = all_reduce_time(n, network(64, 8), "two_level")
    ring = 2 * 7 * 1e-6 + 2 * 7 / 8 * n / 5e9
    # Eight ranks of a node exchange an eighth each at the same time, by one port.
    between = all_reduce_time(n / 8, Network(8, 1, LINK, Link(ALPHA, RATE / 8))).total_s
    assert found.total_s == pytest.approx(ring + between)
    more_ports = all_reduce_time(n, network(64, 8, ports=8), "two_level").total_s
    assert more_ports == pytest.approx(ring + all_reduce_time(n / 8, network(8)).total_s)


def test_the_quickest_is_taken():
    for ranks, per_node in ((6, 1), (64, 8), (512, 4)):
        for size in (8.0, 1e4, 1e6, 1e9):
            found = all_reduce_time(size, network(ranks, per_node))
            each = {name: all_reduce_time(size, network(ranks, per_node), name).total_s for name in ALGORITHMS}
            assert found.total_s == min(each.values())
    assert all_reduce_time(8.0, network(64)).algorithm == "tree"
    assert all_reduce_time(1e9, network(64)).algorithm in {"ring", "halving"}


def test_latency_and_transfer_add_up_and_grow_as_they_should():
    small, large = all_reduce_time(1e3, network(64), "ring"), all_reduce_time(1e6, network(64), "ring")
    assert small.latency_s == large.latency_s == pytest.approx(126 * ALPHA)
    assert large.transfer_s == pytest.approx(1000 * small.transfer_s)
    assert large.total_s == large.latency_s + large.transfer_s


def test_what_backward_hides_is_not_exposed():
    flat = network(16)
    last_s = all_reduce_time(16.0, flat).total_s
    one_s = all_reduce_time(1e6, flat).total_s
    whole_at_the_end = exposed_time([Bucket(1e6, 0.0)], 1.0, flat)
    assert whole_at_the_end.total_s == pytest.approx(one_s + last_s)
    early = exposed_time([Bucket(1e6, 0.5)], 1.0, flat)
    assert early.total_s == pytest.approx(last_s)
    # Ready before the end by half the time that it takes; and two of them, of which the first is in the way.
    half = exposed_time([Bucket(1e6, one_s / 2)], 1.0, flat)
    assert half.total_s == pytest.approx(one_s / 2 + last_s)
    both = exposed_time([Bucket(1e6, one_s / 2), Bucket(1e6, 0.0)], 1.0, flat)
    assert both.total_s == pytest.approx(1.5 * one_s + last_s)
    assert whole_at_the_end.latency_s + whole_at_the_end.bandwidth_s == whole_at_the_end.total_s
    by_ring = exposed_time([Bucket(1e6, 0.0)], 1.0, flat, algorithm="ring")
    without = exposed_time([Bucket(1e6, 0.0)], 1.0, Network(16, 1, LINK, Link(0.0, RATE)), algorithm="ring")
    assert by_ring.bandwidth_s == pytest.approx(without.total_s)
    assert by_ring.latency_s == pytest.approx(2 * 30 * ALPHA)


def test_every_fabric_names_its_sources():
    for name, fabric in FABRICS.items():
        assert name == name.lower()
        assert fabric.title
        assert fabric.bandwidth_source
        assert fabric.latency_source
        assert 1e-7 < fabric.link.latency_s < 1e-3
        assert 1e9 < fabric.link.bandwidth_bytes_per_s < 1e12
    assert {each.within_node for each in FABRICS.values()} == {True, False}
