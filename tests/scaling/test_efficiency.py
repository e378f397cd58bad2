import numpy as np
import pytest
from scaling_tables import synthetic_rows, synthetic_series

from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.efficiency import bootstrap_means, efficiency
from matsci_hpc.scaling.table import Row, Table


def series_of(*rows):
    return Table(rows, "here").series()[0]


def test_efficiency_of_throughput():
    found = efficiency(series_of(Row(1, throughput=100), Row(2, throughput=180), Row(8, throughput=400)))
    assert [point.speedup.value for point in found.points] == [1, 1.8, 4]
    assert [point.efficiency.value for point in found.points] == [1, 0.9, 0.5]
    # Karp and Flatt: e = (1/S - 1/p) / (1 - 1/p)
    assert found.points[2].karp_flatt.value == pytest.approx((1 / 4 - 1 / 8) / (1 - 1 / 8))
    assert found.points[0].karp_flatt is None
    assert found.singles == (1, 2, 8)
    assert all(point.efficiency.low is None for point in found.points)


def test_an_amdahl_program_has_its_serial_share_as_karp_flatt_metric():
    serial = 0.07
    found = efficiency(series_of(*(Row(p, time_s=serial + (1 - serial) / p) for p in (1, 2, 4, 16, 512))))
    assert [point.karp_flatt.value for point in found.points[1:]] == pytest.approx([serial] * 4)


def test_strong_and_weak_times():
    strong = efficiency(series_of(*(Row(p, time_s=t, scaling="strong") for p, t in ((2, 10), (4, 6)))))
    assert strong.points[1].speedup.value == pytest.approx(10 / 6)
    assert strong.points[1].efficiency.value == pytest.approx(10 / 6 / 2)
    weak = efficiency(series_of(*(Row(p, time_s=t, scaling="weak") for p, t in ((2, 10), (4, 12.5)))))
    assert weak.points[1].efficiency.value == pytest.approx(10 / 12.5)
    assert weak.points[1].speedup.value == pytest.approx(2 * 10 / 12.5)


def test_another_base_can_be_named():
    series = series_of(Row(1, throughput=100), Row(2, throughput=180), Row(8, throughput=400))
    found = efficiency(series, base_ranks=2)
    assert [point.efficiency.value for point in found.points] == pytest.approx([100 / 90, 1, 400 / 720])
    assert [point.karp_flatt is None for point in found.points] == [True, True, False]
    with pytest.raises(UserInputError, match="all measurements: 4 ranks are to be the base, and measured are 1, 2, 8"):
        efficiency(series, base_ranks=4)


def test_node_hours_of_samples_and_of_work():
    samples = efficiency(series_of(Row(4, throughput=500, nodes=1), Row(8, throughput=800, nodes=2)))
    assert samples.hours_unit == "node-hours per million samples"
    assert [point.node_hours for point in samples.points] == pytest.approx([2000 / 3600, 2 * 1250 / 3600])
    work = efficiency(series_of(Row(4, time_s=1800), Row(8, time_s=1000)))
    assert work.hours_unit == "rank-hours of the measured work"
    assert [point.node_hours for point in work.points] == pytest.approx([2, 8000 / 3600])
    partly = efficiency(series_of(Row(4, throughput=500, nodes=1), Row(8, throughput=800)))
    assert partly.hours_unit == "rank-hours per million samples"
    assert partly.points[0].node_hours == pytest.approx(4 * 2000 / 3600)


def test_intervals_are_the_same_each_time_and_hold_their_value():
    series = synthetic_series(repeats=4, seed=1)
    first, again, other = efficiency(series), efficiency(series), efficiency(series, seed=1)
    assert first.points == again.points
    assert first.points != other.points
    for point in first.points[1:]:
        for each in (point.throughput, point.speedup, point.efficiency, point.karp_flatt):
            assert each.low < each.value < each.high


def test_single_repeats_have_no_interval_and_do_not_spoil_the_others():
    rows = synthetic_rows([(1, 100.0), (2, 190.0)], 0.05, 3, seed=0)
    found = efficiency(series_of(*rows, Row(4, throughput=350, repeat="1")))
    assert found.singles == (4,)
    assert found.points[1].efficiency.low is not None
    assert found.points[2].throughput.low is None
    assert found.points[2].efficiency.low is None


def test_repeats_that_are_all_equal_have_an_interval_of_no_width():
    rows = [Row(p, throughput=50.0 * p, repeat=str(k)) for p in (1, 2) for k in range(3)]
    estimate = efficiency(series_of(*rows)).points[1].efficiency
    assert (estimate.low, estimate.value, estimate.high) == (1, 1, 1)


def test_resampled_means_have_the_spread_of_means():
    values = np.random.default_rng(0).normal(10, 2, 400)
    means = bootstrap_means(values, np.random.default_rng(1))
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)
    assert means.mean() == pytest.approx(values.mean(), rel=0.01)


@pytest.mark.parametrize(
    ("repeats", "least", "most"), [(2, 0.61, 0.73), (3, 0.85, 0.94), (4, 0.92, 0.98), (10, 0.92, 0.98)]
)
def test_intervals_of_95_percent_hold_the_true_efficiency_that_often(repeats, least, most):
    """Few repeats have no more extreme values to offer than their own, which the report says."""
    truth = 0.8
    held = []
    for seed in range(500):
        rows = synthetic_rows([(1, 100.0), (4, 320.0)], 0.05, repeats, seed)
        estimate = efficiency(series_of(*rows), seed=seed).points[1].efficiency
        held.append(estimate.low <= truth <= estimate.high)
    assert least <= np.mean(held) <= most
