"""An Adam run that makes itself unstable, seen by all instruments together.

On a fixed batch the gradients die out, v follows them down, and the steps grow until the loss surface is too steep for
them (Cohen et al. 2022, arXiv:2207.14484): gradients of successive steps are then one direction with changing sign,
whole layers move together, r falls into two parts, and the loss jumps.
"""

from statistics import median

import pytest
import torch
from torch import nn

from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.telemetry.dynamics.adam_ratio import adam_ratios, ratio_shape
from matsci_hpc.telemetry.dynamics.autocorrelation import Autocorrelation
from matsci_hpc.telemetry.dynamics.projection import DIMENSION, Projection, runs_of
from matsci_hpc.telemetry.dynamics.spikes import LastSteps, SpikeDetector

BEFORE = 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ratios_fall_into_two_parts_before_the_loss_jumps(seed):
    torch.manual_seed(seed)
    layers = [nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    inputs = torch.randn(256, 20, dtype=torch.float64)
    outputs = torch.sin(inputs @ torch.randn(20, dtype=torch.float64) / 2).unsqueeze(1)
    gradients = FlatGradients(model.parameters())
    project = Projection(seed, runs_of(gradients.parameters, gradients.parameters))
    correlation, detector, last = Autocorrelation(2, DIMENSION, BEFORE + 1), SpikeDetector(60, 8.0), LastSteps(BEFORE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0)
    shapes = []
    for step in range(1, 600):
        gradients.zero()
        loss = (model(inputs) - outputs).square().mean()
        loss.backward()
        correlation.add(project(gradients.buffer), step)
        spike = detector.look(loss.item())
        if spike is not None:
            break
        optimizer.step()
        shapes.append(ratio_shape(adam_ratios(gradients.parameters, optimizer)))
        last.add(
            step=step,
            loss=loss.item(),
            lr=3e-3,
            grad_norm=float(gradients.norm()),
            share_beyond=shapes[-1].share_beyond,
        )
    assert spike is not None
    assert spike.loss > 5 * spike.median
    before = last.records()
    likeness = correlation.neighbours(BEFORE + 1)
    assert [each["step"] for each in before] == list(range(step - BEFORE, step))
    calm = median(each.bimodality for each in shapes[40:100])
    assert max(each.bimodality for each in shapes[-BEFORE:]) > max(0.5, 3 * calm)
    assert median(likeness.values()) < -0.8  # one direction, another sign at every step
