import math

import pytest
import torch
from torch import nn

from matsci_hpc.telemetry.dynamics.adam_ratio import BINS, EDGE, adam_ratios, ratio_shape, together


def trained(gradients, **options):
    """An Adam that has taken a step by each of some gradients, [steps, parameters]."""
    parameter = nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0.0, **options)
    for gradient in gradients:
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter], optimizer, (before - parameter.detach()) / 1e-2


def test_ratios_are_what_adam_moves_parameters_by():
    torch.manual_seed(0)
    parameters, optimizer, moved = trained(torch.randn(30, 2000))
    torch.testing.assert_close(adam_ratios(parameters, optimizer), moved, rtol=1e-3, atol=1e-4)


def test_independent_gradients_give_a_bell_and_lasting_ones_two_points():
    torch.manual_seed(0)
    noise = torch.randn(400, 20_000)
    parameters, optimizer, _ = trained(noise)
    bell = ratio_shape(adam_ratios(parameters, optimizer))
    # m is a mean of independent gradients of unit variance with weights (1 - b) b^k: its variance is (1 - b) / (1 + b).
    assert bell.std == pytest.approx(math.sqrt(0.1 / 1.9), rel=0.03)
    assert bell.share_beyond < 1e-3
    assert bell.bimodality == pytest.approx(1 / 3, abs=0.02)
    parameters, optimizer, _ = trained(0.02 * noise[:100] + torch.randn(20_000).sign())
    lasting = ratio_shape(adam_ratios(parameters, optimizer))
    assert lasting.share_beyond > 0.99
    assert lasting.bimodality > 0.99
    assert abs(lasting.mean) < 0.03


def test_the_first_step_is_bimodal_in_any_run():
    shape = ratio_shape(adam_ratios(*trained(torch.randn(1, 1000))[:2]))
    assert shape.share_beyond == 1.0


def test_a_histogram_counts_every_value_at_its_place():
    values = torch.tensor([-5.0, -1.24, -0.01, 0.01, 0.91, 0.92, 7.0])
    shape = ratio_shape(values)
    assert sum(shape.histogram) == shape.values == 7
    width = 2 * EDGE / BINS
    expected = [0] * BINS
    for value in values.clamp(-EDGE, EDGE - 1e-6).tolist():
        expected[int((value + EDGE) / width)] += 1
    assert shape.histogram == expected
    assert shape.share_beyond == pytest.approx(5 / 7)


def test_shapes_of_known_distributions():
    even = torch.linspace(-1, 1, 100_001)
    assert ratio_shape(even).bimodality == pytest.approx(5 / 9, abs=1e-3)
    two = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    assert ratio_shape(two).bimodality == pytest.approx(1.0, abs=1e-6)
    assert ratio_shape(torch.ones(5)).bimodality is None
    assert ratio_shape(torch.empty(0)) is None
    assert ratio_shape(torch.tensor([1.0, math.nan])) is None


def test_a_large_group_is_sampled_and_its_share_hardly_differs():
    torch.manual_seed(1)
    parameters, optimizer, _ = trained(torch.randn(5, 90_000))
    every, some = adam_ratios(parameters, optimizer, 90_000), adam_ratios(parameters, optimizer, 10_000)
    assert len(every) == 90_000
    assert len(some) == 10_000
    assert ratio_shape(some).share_beyond == pytest.approx(ratio_shape(every).share_beyond, abs=0.02)
    shapes = {"a": ratio_shape(torch.ones(4)), "b": ratio_shape(torch.zeros(4))}
    assert together(shapes, {"a": 3, "b": 1}) == 0.75
    assert together({}, {}) is None
