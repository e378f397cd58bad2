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
    for step in range(400):
        gradient = phi * gradient + (1 - phi**2) ** 0.5 * torch.randn(size)
        found.add(project(gradient), step)
    correlations = found.correlations()
    assert correlations == pytest.approx([phi**lag for lag in range(1, lags + 1)], abs=0.05)
    assert found.correlations() == [None] * lags  # a new interval


def test_every_interval_looks_back_at_the_steps_before_it():
    found = Autocorrelation(2, 2, keep=2)
    found.add(torch.tensor([1.0, 0.0]), 5)
    assert found.neighbours(2) == {}
    assert found.correlations() == [None, None]
    found.add(torch.tensor([0.0, 2.0]), 6)
    assert found.correlations() == [0.0, None]
    found.add(torch.tensor([3.0, 3.0]), 7)
    assert found.correlations() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert found.neighbours(2) == pytest.approx({6: 0.0, 7: 0.5**0.5})
    found.add(torch.tensor([1.0, 1.0]), 9)  # the gradient of step 8 was not finite
    found.add(torch.tensor([0.0, 1.0]), 10)
    assert found.neighbours(2) == pytest.approx({10: 0.5**0.5})


def test_a_stopped_series_goes_on_to_the_bit():
    torch.manual_seed(3)
    rows = torch.randn(12, 4)
    whole, first, second = (Autocorrelation(3, 4) for _ in range(3))
    for step, row in enumerate(rows):
        whole.add(row, step)
        (first if step < 5 else second).add(row, step)
        if step == 4:
            second.load(first.state())
    assert second.correlations() == whole.correlations()
    other = Autocorrelation(2, 4)
    other.load(whole.state())  # of another number of lags
    other.add(rows[0], 12)
    assert other.correlations()[0] == pytest.approx(float(rows[0] @ rows[11] / (rows[0].norm() * rows[11].norm())))


def test_long_intervals_are_added_up_in_parts():
    torch.manual_seed(0)
    rows = torch.randn(3 * AT_ONCE + 17, 4)
    found = Autocorrelation(5, 4, keep=9)
    for step, row in enumerate(rows):
        found.add(row, step)
    y = rows.double()
    cosines = torch.cosine_similarity(y[1:], y[:-1])[-9:].tolist()
    assert found.neighbours(9) == pytest.approx(dict(zip(range(len(y) - 9, len(y)), cosines, strict=True)))
    expected = []
    for lag in range(1, 6):
        new, old = y[lag:], y[:-lag]
        expected.append(float((new * old).sum() / (new.square().sum() * old.square().sum()).sqrt()))
    assert found.correlations() == pytest.approx(expected)
