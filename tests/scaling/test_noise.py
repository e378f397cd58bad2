import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from matsci_hpc.scaling.noise import expected_largest, largest_of


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 4096, 65536])
def test_the_largest_of_many_is_that_of_the_integral(count):
    # E[max] = integral of x d(F^n)
    exact = quad(lambda x: x * count * norm.pdf(x) * norm.cdf(x) ** (count - 1), -9, 9, limit=500)[0]
    assert largest_of(count) == pytest.approx(exact, abs=2e-3)


def test_equal_ranks():
    for count in (2, 64, 65536):
        expected = 3.0 * (1 + 0.05 * largest_of(count))
        assert expected_largest(np.full(count, 3.0), 0.05) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_unequal_ranks_against_drawn_numbers(noise):
    random = np.random.default_rng(3)
    times = random.uniform(0.5, 1.5, 300)
    drawn = times * (1 + noise * random.standard_normal((20_000, 300)))
    assert expected_largest(times, noise) == pytest.approx(drawn.max(axis=1).mean(), rel=3e-3)


def test_without_noise_it_is_the_largest_share():
    times = np.array([1.0, 4.0, 2.0])
    assert expected_largest(times, 0.0) == 4.0
    assert expected_largest(times, 1e-6) == pytest.approx(4.0, rel=1e-4)
    assert expected_largest(np.zeros(3), 0.1) == 0.0
