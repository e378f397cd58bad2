import numpy as np
import pytest

from matsci_hpc.scaling.step_cost import fit_line


def measured(random, *, noise=0.0, held_up=0.0):
    costs = random.choice([2e3, 8e3, 3e4, 1e5], 200) * random.uniform(0.9, 1.1, 200)
    times = (0.01 + 4e-6 * costs) * (1 + noise * random.standard_normal(200))
    times[random.random(200) < held_up] *= 4
    return costs, times


def test_the_line_is_found_exactly():
    costs, times = measured(np.random.default_rng(1))
    line = fit_line(costs, times)
    assert line.fixed_s == pytest.approx(0.01, rel=1e-6)
    assert line.per_cost_s == pytest.approx(4e-6, rel=1e-6)
    assert line.noise < 1e-6
    assert line.fixed_known


def test_steps_that_were_held_up_count_little():
    costs, times = measured(np.random.default_rng(2), noise=0.03, held_up=0.2)
    line = fit_line(costs, times)
    assert line.fixed_s == pytest.approx(0.01, rel=0.1)
    assert line.per_cost_s == pytest.approx(4e-6, rel=0.05)
    assert line.noise == pytest.approx(0.03, rel=0.5)


def test_shares_that_are_alike_tell_no_fixed_part():
    line = fit_line([1000.0, 1010.0, 1020.0], [1.0, 1.1, 0.9])
    assert not line.fixed_known
    assert line.fixed_s == 0
    assert line.per_cost_s == pytest.approx(1e-3, rel=0.2)


def test_neither_part_is_negative():
    costs = np.array([1e3, 2e3, 4e3, 8e3])
    line = fit_line(costs, 3e-6 * costs - 1e-3)
    assert line.fixed_s == 0
    assert line.per_cost_s > 0
    falling = fit_line(costs, [4.0, 3.0, 2.0, 1.0])
    assert falling.per_cost_s > 0
