import numpy as np
import pytest

from matsci_hpc.config.train import Optimizer
from matsci_hpc.training.clipping import LEAST, ClipBound


def test_a_number_is_the_bound():
    assert ClipBound(Optimizer()).bound(7.0) is None
    assert ClipBound(Optimizer(clip_norm=2.0)).bound(7.0) == 2.0


def test_a_quantile_of_the_last_norms_is_the_bound():
    bound = ClipBound(Optimizer(clip_quantile=0.9, clip_window=50))
    norms = np.random.default_rng(0).lognormal(size=200).tolist()
    found = [bound.bound(norm) for norm in norms]
    assert found[: LEAST - 1] == [None] * (LEAST - 1)
    for step in (LEAST - 1, 40, 120, 199):
        assert found[step] == pytest.approx(np.quantile(norms[max(0, step - 49) : step + 1], 0.9))
    clipped = sum(norm > limit for norm, limit in zip(norms, found, strict=True) if limit is not None)
    assert clipped / len(norms) == pytest.approx(0.1, abs=0.05)
    assert bound.bound(float("nan")) is not None  # and is not one of them
    assert bound.bound(1.0) == pytest.approx(np.quantile([*norms[-49:], 1.0], 0.9))


def test_batches_without_any_target_do_not_stop_the_others():
    bound = ClipBound(Optimizer(clip_quantile=0.1, clip_window=20))
    found = [bound.bound(0.0 if step % 4 == 0 else 1.0) for step in range(40)]
    assert found[-1] == 1.0


def test_the_lower_bound_counts_and_a_stopped_run_goes_on():
    config = Optimizer(clip_quantile=0.5, clip_norm=3.0)
    bound, again = ClipBound(config), ClipBound(config)
    for norm in range(20):
        bound.bound(float(norm))
    again.load(bound.state())
    assert bound.bound(1.0) == again.bound(1.0) == 3.0
    again.load({"norms": again.state()["norms"] * 0.1})
    assert again.bound(0.5) < 1.0
