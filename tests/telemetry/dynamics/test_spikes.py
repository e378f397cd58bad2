import math

import pytest
import torch

from matsci_hpc.telemetry.dynamics.spikes import LastSteps, SpikeDetector


def falling(steps, noise=0.05):
    torch.manual_seed(0)
    return [math.exp(-step / 200) * (1 + noise * float(torch.randn(()))) for step in range(steps)]


def test_a_spike_is_found_at_its_first_step_and_once():
    losses = falling(300)
    losses[150:155] = [4.0, 9.0, 5.0, 3.0, 2.0]
    losses[250] = 3.0
    detector = SpikeDetector(50, 8.0)
    found = [step for step, loss in enumerate(losses) if detector.look(loss)]
    assert found == [150, 250]


def test_a_falling_noisy_loss_and_what_is_no_number_are_no_spikes():
    detector = SpikeDetector(50, 8.0)
    losses = falling(2000, noise=0.2)
    losses[77] = math.nan
    losses[78] = math.inf
    assert not any(detector.look(loss) for loss in losses)


def test_a_loss_that_stays_high_becomes_the_normal_one():
    detector = SpikeDetector(20, 6.0)
    found = [step for step in range(200) if detector.look((1.0 if step < 100 else 3.0) + 0.01 * math.sin(step))]
    assert found == [100]
    assert detector.look(9.0).median == pytest.approx(3.0, abs=0.05)


def test_a_spike_says_how_far_out_it_is():
    detector = SpikeDetector(4, 5.0)
    for loss in (1.0, 2.0, 3.0, 4.0):
        assert detector.look(loss) is None
    spike = detector.look(20.0)
    assert (spike.loss, spike.median, spike.mad) == (20.0, 2.5, 1.0)
    assert spike.deviations == pytest.approx(17.5 / 1.4826)


def test_a_stopped_search_goes_on_the_same():
    losses = falling(200)
    losses[103] = 5.0
    whole, first, second = (SpikeDetector(40, 8.0) for _ in range(3))
    expected = [whole.look(loss) for loss in losses]
    found = [first.look(loss) for loss in losses[:104]]
    second.load(first.state())
    assert found + [second.look(loss) for loss in losses[104:]] == expected


def test_the_last_steps_are_kept_in_short():
    last = LastSteps(2)
    for step in (4, 5, 6):
        last.add(step=step, loss=0.5, lr=1e-3, grad_norm=2.0, share_beyond=None)
    again = LastSteps(2)
    again.load(last.state())
    expected = {"loss": 0.5, "lr": 1e-3, "grad_norm": 2.0, "share_beyond": None}
    assert again.records() == last.records() == [{"step": 5, **expected}, {"step": 6, **expected}]
