import pytest
import torch

from matsci_hpc.telemetry.dynamics.autocorrelation import AT_ONCE, Autocorrelation
from matsci_hpc.telemetry.dynamics.projection import DIMENSION, Projection, Run


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.6])
def test_an_autoregressive_series_has_its_known_correlations(phi):
    torch.manual_seed(0)
    size, lags = 5000, 5
    project, found = Projection(1, [Run(0, 0, size)]), Autocorrelation(lags, DIMENSION)
    gradient = torch.randn(size)
    for _ in range(400):
        gradient = phi * gradient + (1 - phi**2) ** 0.5 * torch.randn(size)
        found.add(project(gradient))
    correlations = found.correlations()
    assert correlations == pytest.approx([phi**lag for lag in range(1, lags + 1)], abs=0.05)
    assert found.correlations() == [None] * lags  # a new interval


def test_every_interval_looks_back_at_the_steps_before_it():
    found = Autocorrelation(2, 2, keep=2)
    found.add(torch.tensor([1.0, 0.0]))
    assert found.neighbours(2) == [None]
    assert found.correlations() == [None, None]
    found.add(torch.tensor([0.0, 2.0]))
    assert found.correlations() == [0.0, None]
    found.add(torch.tensor([3.0, 3.0]))
    assert found.correlations() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert found.neighbours(2) == pytest.approx([0.0, 0.5**0.5])


def test_a_stopped_series_goes_on_to_the_bit():
    torch.manual_seed(3)
    rows = torch.randn(12, 4)
    whole, first, second = (Autocorrelation(3, 4) for _ in range(3))
    for row in rows:
        whole.add(row)
    for row in rows[:5]:
        first.add(row)
    second.load(first.state())
    for row in rows[5:]:
        second.add(row)
    assert second.correlations() == whole.correlations()
    other = Autocorrelation(2, 4)
    other.load(whole.state())  # of another number of lags
    other.add(rows[0])
    assert other.correlations()[0] == pytest.approx(float(rows[0] @ rows[11] / (rows[0].norm() * rows[11].norm())))


def test_long_intervals_are_added_up_in_parts():
    torch.manual_seed(0)
    rows = torch.randn(3 * AT_ONCE + 17, 4)
    found = Autocorrelation(5, 4, keep=9)
    for row in rows:
        found.add(row)
    y = rows.double()
    assert found.neighbours(9) == pytest.approx(torch.cosine_similarity(y[1:], y[:-1])[-9:].tolist())
    expected = []
    for lag in range(1, 6):
        new, old = y[lag:], y[:-lag]
        expected.append(float((new * old).sum() / (new.square().sum() * old.square().sum()).sqrt()))
    assert found.correlations() == pytest.approx(expected)
