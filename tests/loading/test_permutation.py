import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, norm

from matsci_hpc.loading.order import Order
from matsci_hpc.loading.permutation import SMALL, Permutation, keyed_number

sizes = st.one_of(st.integers(1, 300), st.integers(SMALL - 3, SMALL + 300), st.integers(1, 60_000))
keys = st.integers(0, 2**63)
GOLDEN_SMALL = [8, 5, 0, 9, 6, 7, 4, 1, 3, 2]
GOLDEN_LARGE = [3242805, 1573411, 3837283, 6555329, 925207, 6561416]
GOLDEN_HUGE = [570255658366, 206017702503, 81028613620]
GOLDEN_BLOCKS = [708, 709, 710, 888, 67]


def whole(order):
    return order(np.arange(order.size))


@given(sizes, keys, st.integers(0, 1000))
@settings(deadline=None)
def test_every_number_once(size, seed, epoch):
    assert np.array_equal(np.sort(whole(Permutation(size, seed, epoch))), np.arange(size))


@given(sizes, st.integers(1, 5000), keys)
@settings(deadline=None)
def test_blocks_hold_every_number_once_and_stay_together(size, block, seed):
    numbers = whole(Order(size, block, seed))
    assert np.array_equal(np.sort(numbers), np.arange(size))
    broken = int((np.diff(numbers) % size != 1 % size).sum())
    assert broken <= -(-size // min(block, size)) + 1


@given(sizes, st.integers(1, 50), st.data())
@settings(deadline=None)
def test_any_part_is_the_same_part_of_the_whole(size, block, data):
    order = Order(size, block, 5)
    some = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(order(some), whole(order)[some])


def test_borders_of_blocks_move_between_epochs():
    first = {tuple(sorted(each)) for each in whole(Order(1000, 10, 3, 0, "order")).reshape(-1, 10).tolist()}
    for epoch in (1, 2):
        other = {tuple(sorted(each)) for each in whole(Order(1000, 10, 3, epoch, "order")).reshape(-1, 10).tolist()}
        assert not first & other


def test_golden_values():
    # An order must never change: runs that are resumed with another version would repeat and miss samples.
    assert whole(Permutation(10, 7, 0, "order")).tolist() == GOLDEN_SMALL
    assert Permutation(10**7, 7, 0, "order")(np.arange(6)).tolist() == GOLDEN_LARGE
    assert Permutation(10**12, 2**63, 3)(np.array([0, 1, 10**12 - 1])).tolist() == GOLDEN_HUGE
    assert Order(1000, 64, 7, 0)(np.array([0, 1, 2, 500, 999])).tolist() == GOLDEN_BLOCKS


@pytest.mark.parametrize("size", [5, 64, SMALL + 1])
def test_positions_and_neighbours_are_fair(size):
    """Over many keys each number stands at a place, and follows another at a distance, equally often."""
    count = 20_000 if size < SMALL else 60_000
    places = np.array([0, 1, size // 2, size - 1])
    drawn = np.array([Permutation(size, key, "fair")(places) for key in range(count)])
    bins = min(size, 50)
    for column in drawn.T:
        assert chisquare(_binned(column, size, bins), count * _widths(size, bins)).pvalue > 1e-5
    distance = (drawn[:, 1] - drawn[:, 0]) % size - 1
    bins = min(size - 1, 50)
    assert chisquare(_binned(distance, size - 1, bins), count * _widths(size - 1, bins)).pvalue > 1e-5


@pytest.mark.parametrize("size", [100_003, 10**9])
def test_one_large_order_is_fair(size):
    order = Permutation(size, 11, "one")
    numbers = order(np.arange(20_000))  # neighbouring places
    assert chisquare(np.bincount(numbers * 64 // size, minlength=64)).pvalue > 1e-5
    assert chisquare(np.bincount(np.diff(numbers) % size * 64 // size, minlength=64)).pvalue > 1e-5
    pairs = (numbers[:-1] * 16 // size) * 16 + numbers[1:] * 16 // size
    assert chisquare(np.bincount(pairs, minlength=256)).pvalue > 1e-5
    # Low digits, which a network on a rectangle keeps in a coordinate of their own.
    assert chisquare(np.bincount(numbers % 7, minlength=7)).pvalue > 1e-5


def test_epochs_and_seeds_are_uncorrelated():
    size = 50_000
    orders = [whole(Permutation(size, *key)) for key in [(1, 0), (1, 1), (2, 0), (2**63 - 1, 0), (2**63, 0), (1, 10)]]
    limit = norm.isf(1e-6) / np.sqrt(size)
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < limit
            assert (one == other).sum() < 15  # one fixed point is expected


def test_keyed_numbers_are_in_range_and_fair():
    numbers = [keyed_number(7, "test", i) for i in range(7000)]
    assert chisquare(np.bincount(numbers, minlength=7)).pvalue > 1e-5


def _binned(values, size, bins):
    return np.bincount(values * bins // size, minlength=bins)


def _widths(size, bins):
    return np.bincount(np.arange(size) * bins // size, minlength=bins) / size
