import pytest
import torch

from matsci_hpc.telemetry.dynamics.noise_scale import NoiseScale, estimate_noise, weighted_square


def estimates(parts, steps, signal, noise):
    """Estimates of a quadratic loss |theta - x|^2 / 2 whose samples x are normal: the gradient of one is known."""
    torch.manual_seed(0)
    dimension, batch = 20, sum(parts)
    for _ in range(steps):
        samples = signal + noise * torch.randn(batch, dimension, dtype=torch.float64)
        sums = [part.sum(0) / batch for part in samples.split(parts)]
        weighted = sum(weighted_square(float(s.square().sum()), n, batch) for s, n in zip(sums, parts, strict=True))
        yield estimate_noise(weighted, sum(n > 0 for n in parts), float(sum(sums).square().sum()), batch)


@pytest.mark.parametrize("parts", [[8, 8, 8, 8], [1, 3, 0, 12, 30], [2, 62]])
def test_a_quadratic_has_its_known_noise_scale(parts):
    signal, noise, dimension = 0.5, 2.0, 20
    found = list(estimates(parts, 4000, signal, noise))
    trace, square = dimension * noise**2, dimension * signal**2
    assert sum(each.trace for each in found) / len(found) == pytest.approx(trace, rel=0.03)
    assert sum(each.square for each in found) / len(found) == pytest.approx(square, rel=0.1)
    assert found[0].parts == sum(n > 0 for n in parts)


def test_equal_parts_give_the_estimates_of_mccandlish():
    big, small, n = 3.0, [5.0, 7.0], 4
    found = estimate_noise(sum(weighted_square(each / 4, n, 2 * n) for each in small), 2, big, 2 * n)
    mean_small = sum(small) / 2
    assert found.square == pytest.approx((2 * n * big - n * mean_small) / n)
    assert found.trace == pytest.approx((mean_small - big) / (1 / n - 1 / (2 * n)))


def test_averages_come_before_the_ratio():
    scale = NoiseScale()
    assert scale.value is None
    for each in estimates([4] * 8, 60, 0.5, 2.0):
        scale.add(each)
    assert scale.value == pytest.approx(16.0, rel=0.5)
    again = NoiseScale()
    again.load(scale.state())
    assert again.value == scale.value
    assert estimate_noise(1.0, 1, 1.0, 4) is None
