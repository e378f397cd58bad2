"""Statistics of pairs against textbook and other programs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from matsci_hpc.comparison.statistics import compare_pairs, holm, spread

# Student's own example: additional hours of sleep of ten patients by two drugs (Biometrika 6, 1, 1908; R's data set
# `sleep`). R 4: t.test(extra ~ group, data = sleep, paired = TRUE) gives t = -4.0621, df = 9, p-value = 0.002833 and
# the interval -2.4598858 -0.7001142, mean difference -1.58.
FIRST = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SECOND = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def test_students_own_example():
    found = compare_pairs(FIRST, SECOND, "lower")
    assert found.seeds == 10
    assert found.difference == pytest.approx(-1.58)
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=1e-7), pytest.approx(-0.7001142, abs=1e-7))
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.verdict == "better"
    assert found.relative == pytest.approx(-1.58 / np.mean(SECOND))
    assert compare_pairs(FIRST, SECOND, "higher").verdict == "worse"
    assert compare_pairs(SECOND, FIRST, "higher").verdict == "better"


def test_the_interval_and_the_p_value_agree():
    for shift in (0.0, 0.3, 0.6, 1.0):
        values = [1.0 + shift, 1.5 + shift, 0.7 + 2 * shift]
        found = compare_pairs(values, [1.1, 1.2, 0.9], "lower")
        assert (found.p < 0.05) == (found.verdict != "cannot be told")
        assert found.p == pytest.approx(stats.ttest_rel(values, [1.1, 1.2, 0.9]).pvalue)


def test_three_seeds_can_never_convince_wilcoxon():
    found = compare_pairs([1.0, 1.1, 1.2], [2.0, 2.2, 2.1], "lower")
    assert found.wilcoxon == found.least_wilcoxon == 0.25
    assert found.verdict == "better"


def test_one_seed_tells_nothing():
    found = compare_pairs([1.0], [2.0], "lower")
    assert (found.difference, found.low, found.high, found.p) == (-1.0, None, None, None)
    assert found.verdict == "cannot be told"
    assert spread([1.0]) is None


def test_arms_that_are_the_same_to_the_last_bit():
    found = compare_pairs([1.0, 2.0], [1.0, 2.0], "lower")
    assert (found.difference, found.low, found.high, found.p, found.wilcoxon) == (0.0, None, None, None, None)
    assert found.verdict == "cannot be told"


def test_differences_that_are_all_equal_but_for_rounding():
    found = compare_pairs([0.1 + 0.2, 0.4 + 0.2, 0.8 + 0.2], [0.1, 0.4, 0.8], "lower")
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert found.verdict == "cannot be told"


def test_steps_of_a_coarse_metric_are_no_certainty():
    """Two seeds that differ by one sample of 50 each: the same difference twice, by chance."""
    found = compare_pairs([0.92, 0.90], [0.90, 0.88], "higher")
    assert (found.p, found.verdict) == (None, "cannot be told")
    assert holm([found.p, 0.01]) == [None, 0.01]


def test_a_mean_of_zero_has_no_share():
    found = compare_pairs([1.0, 2.0, 3.0], [-1.0, 0.0, 1.0], "lower")
    assert found.relative is found.relative_low is None


def test_holms_own_order():
    # By hand: 0.01 * 4, 0.03 * 3 = 0.09 and 0.04 * 2 = 0.08 raised to 0.09, 0.5 * 1.
    assert holm([0.04, None, 0.01, 0.5, 0.03]) == [
        pytest.approx(0.09),
        None,
        pytest.approx(0.04),
        pytest.approx(0.5),
        pytest.approx(0.09),
    ]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_truth_about_as_often_as_it_says(seed):
    """200 studies of four seeds each: the truth is outside in 5 % of them, in hardly any collection in 15 %."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, 10.0, (200, 4))  # of a seed, in both arms: pairing takes it away
    arms = shared + 1.0 + random.normal(0, 0.5, (200, 4)), shared + random.normal(0, 0.5, (200, 4))
    found = [compare_pairs(one, other, "lower") for one, other in zip(*arms, strict=True)]
    missed = sum(not each.low <= 1.0 <= each.high for each in found)
    assert missed <= 30
    assert math.fsum(each.difference for each in found) / 200 == pytest.approx(1.0, abs=0.2)
