import math

import numpy as np
import pytest
from ranks import run_ranks

from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.measurements import Key, Measurement, Point, read_measurements
from matsci_hpc.scaling.communication import Network, all_reduce_time
from matsci_hpc.scaling.communication_fit import FORMS, Link, all_reduce_s, fit_all_reduce, fit_measurements

SIZES = np.array([4.0] + [1024 * 4.0**power for power in range(9)])
"""Those of `matsci-hpc doctor --comm`."""
LINK, INNER = Link(5e-6, 2e9), Link(1e-6, 9e9)
EACH, RANKS, NODES = np.tile(SIZES, 3), np.repeat([2, 4, 8], 10), np.repeat([1, 2, 4], 10)


def measured(form, rng, noise=0.1):
    return all_reduce_s(form, LINK, EACH, RANKS, NODES, INNER) * np.exp(rng.normal(0, noise, len(EACH)))


def test_times_of_an_all_reduce_are_those_of_its_messages():
    n, p = 1e6, 8
    message = LINK.message_s
    assert all_reduce_s("ring", LINK, n, p) == pytest.approx(2 * (p - 1) * message(n / p))
    assert all_reduce_s("tree", LINK, n, p) == pytest.approx(3 * message(n))
    assert all_reduce_s("halving", LINK, n, p) == pytest.approx(2 * (message(n / 2) + message(n / 4) + message(n / 8)))
    inside, outside = 2 * 3 * INNER.message_s(n / 4), 2 * 1 * LINK.message_s(n / 2)
    assert all_reduce_s("two_level", LINK, n, p, 2, INNER) == pytest.approx(inside + outside)
    assert [float(all_reduce_s(form, LINK, n, 1)) for form in FORMS] == [0, 0, 0, 0]


@pytest.mark.parametrize("form", ["ring", "tree", "halving"])
def test_predictions_count_with_the_same_times(form):
    for ranks in (*range(1, 18), 48, 64, 100, 1023):
        network = Network(ranks, 1, INNER, LINK)
        expected = all_reduce_time(1e6, network, form).total_s
        assert float(all_reduce_s(form, LINK, 1e6, ranks)) == pytest.approx(expected, rel=1e-12)


def test_predictions_in_two_levels_count_with_the_same_times_where_nodes_go_around_a_ring():
    for nodes, together in ((2, 4), (3, 2)):  # two nodes have one way only
        network = Network(nodes * together, together, INNER, LINK)
        ours = float(all_reduce_s("two_level", LINK, 1e9, nodes * together, nodes, INNER))
        assert ours == pytest.approx(all_reduce_time(1e9, network, "two_level").total_s, rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_without_noise_gives_the_links_back(form):
    found = fit_all_reduce(EACH, RANKS, measured(form, np.random.default_rng(0), noise=0), NODES)
    assert found.form == form
    assert found.alike == ()
    assert found.link.latency_s == pytest.approx(LINK.latency_s)
    assert found.link.bandwidth_bytes_per_s == pytest.approx(LINK.bandwidth_bytes_per_s)
    if form == "two_level":
        assert found.within_node.latency_s == pytest.approx(INNER.latency_s)
        assert found.within_node.bandwidth_bytes_per_s == pytest.approx(INNER.bandwidth_bytes_per_s)
    assert found.time_s(1e6, 64, 16) == pytest.approx(all_reduce_s(form, LINK, 1e6, 64, 16, INNER))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_intervals_of_95_percent_hold_the_truth_that_often(form):
    rng = np.random.default_rng(FORMS.index(form))
    held = []
    for _ in range(500):
        found = fit_all_reduce(EACH, RANKS, measured(form, rng), NODES, form)
        pairs = [(found.link_interval, LINK)] + ([(found.within_node_interval, INNER)] if found.within_node else [])
        held.append(
            [
                inside
                for interval, link in pairs
                for inside in (
                    interval.latency_s.holds(link.latency_s),
                    interval.bandwidth_bytes_per_s.holds(link.bandwidth_bytes_per_s),
                )
            ]
        )
    # Of 500 studies at 95 %, all but one in a thousand such counts lie between 459 and 490: 92 % to 98 %.
    shares = np.mean(held, axis=0)
    assert ((shares >= 0.92) & (shares <= 0.98)).all(), shares


def test_what_doctor_stores_is_fitted_and_one_number_of_ranks_tells_no_form():
    def measurement(ranks):
        key = Key(
            backend="gloo",
            ranks=ranks,
            nodes=1,
            ranks_per_node=ranks,
            device="cpu",
            host="h",
            fabric="TCP",
            versions={},
        )
        times = all_reduce_s("halving", LINK, SIZES, ranks)
        points = [
            Point(bytes=int(size), time_s=time, low_s=time, high_s=time, repeats=3)
            for size, time in zip(SIZES, times, strict=True)
        ]
        return Measurement(
            key=key, date="", small_s=1e-5, latency_s=1e-5, bandwidth_bytes_per_s=1e9, points=tuple(points)
        )

    alone = fit_measurements([measurement(8)])
    assert {alone.form, *alone.alike} == {"ring", "tree", "halving"}
    assert alone.time_s(SIZES, 8) == pytest.approx(all_reduce_s("halving", LINK, SIZES, 8))
    several = fit_measurements([measurement(8), measurement(64)])
    assert (several.form, several.alike) == ("halving", ())
    assert several.time_s(1e6, 512) == pytest.approx(all_reduce_s("halving", LINK, 1e6, 512))


def test_times_that_do_not_grow_have_no_end_of_bandwidth():
    found = fit_all_reduce(SIZES, 4, np.full(len(SIZES), 1e-3))
    assert found.link.bandwidth_bytes_per_s == math.inf or found.link.bandwidth_bytes_per_s > 1e15
    assert found.time_s(SIZES, 4) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("sizes", "ranks", "times", "complaint"),
    [
        ([4], 2, [1e-6], "need measurements of two sizes at least"),
        ([4, 4], 2, [1e-6, 1e-6], "need measurements of two sizes at least"),
        ([4, 8], 1, [1e-6, 1e-6], "one rank alone sends nothing"),
        ([4, 8], 2, [1e-6, -1e-6], "must be positive numbers"),
        ([4, 8], 2, [1e-6, math.nan], "must be positive numbers"),
    ],
)
def test_what_cannot_be_fitted_is_said(sizes, ranks, times, complaint):
    with pytest.raises(UserInputError, match=complaint):
        fit_all_reduce(sizes, ranks, times)


def test_two_measurements_give_the_links_and_no_interval():
    found = fit_all_reduce([4, 1e6], 2, all_reduce_s("ring", LINK, [4, 1e6], 2))
    assert found.link.latency_s == pytest.approx(LINK.latency_s)
    assert found.link_interval is None


@pytest.mark.mpi
def test_what_real_ranks_measure_is_fitted(tmp_path):
    path = tmp_path / "communication.json"
    for ranks in (2, 3):
        done = run_ranks(ranks, "doctor", "--comm", "--seconds", "0.3", MATSCI_HPC_MEASUREMENTS=str(path))
        assert done.returncode == 0, done.stderr
    kept, _ = read_measurements(path)
    for backend in ("gloo", "mpi"):
        found = fit_measurements([each for each in kept if each.key.backend == backend])
        assert found.fit.freedom >= 6  # two numbers of ranks, four sizes at least
        assert found.link_interval.latency_s.holds(found.link.latency_s)
        assert found.time_s(1 << 30, 3) > found.time_s(4, 3) > 0
