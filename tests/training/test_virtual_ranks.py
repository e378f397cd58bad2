"""Few ranks that stand for many take the same steps."""

from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from test_exactness import assert_same_run

pytestmark = pytest.mark.mpi
SHORT = ("steps=12", "batch.graphs=7", "checkpoint.every_steps=6", "evaluate.every_steps=6")
ORDERED = "parallel.reduction=ordered"


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Everything that training has left: parameters and the moments of the optimiser."""
    last = max((run / "checkpoints").glob("step-*"))
    return {
        f"{kind}/{name}": value
        for kind in ("model", "optimizer")
        for name, value in load_file(last / f"{kind}.safetensors").items()
    }


@pytest.fixture(scope="module")
def four(train_in, tmp_path_factory) -> Path:
    """Four real ranks, gradients of float32 added in pairs; the last step of an epoch has too few graphs for all."""
    return train_in(tmp_path_factory.mktemp("virtual") / "four", 4, *SHORT, ORDERED, "precision=float32")


@pytest.mark.parametrize(
    ("ranks", "virtual", "backend"), [(1, 4, "auto"), (2, 2, "gloo"), (2, 2, "mpi"), (4, 1, "mpi")]
)
def test_virtual_ranks_follow_real_ones_to_the_last_bit(four, train, lines, ranks, virtual, backend):
    options = (f"parallel.virtual_ranks={virtual}", f"parallel.backend={backend}", ORDERED, "precision=float32")
    few = train("few", ranks, *SHORT, *options)
    keys = ("step", "loss", "losses", "grad_norm", "lr", "graphs", "edges")
    assert [[line[key] for key in keys] for line in lines(few)] == [[line[key] for key in keys] for line in lines(four)]
    mine, theirs = tensors(few), tensors(four)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


def test_without_an_order_they_differ_by_rounding_alone(whole, train, lines):
    few = train("few", 2, "parallel.virtual_ranks=3", "batch.micro_batches=2")
    assert_same_run(lines, whole(1), few, steps=20, tolerance=1e-6)


@pytest.mark.slow
def test_a_run_on_real_ranks_goes_on_with_virtual_ones(four, train, lines):
    stopped = train("stopped", 4, *SHORT[1:], "steps=12", "max_time_s=1e-9", ORDERED, "precision=float32")
    assert 0 < len(lines(stopped)) < 12
    options = ("parallel.virtual_ranks=2", ORDERED, "precision=float32")
    result = run_ranks(2, "train", stopped / "config.yaml", "max_time_s=null", *options)
    assert result.returncode == 0, result.stderr
    mine, theirs = tensors(stopped), tensors(four)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("parallel.virtual_ranks=3", ORDERED), "virtual_ranks of 1, 2, 4, 8"),
        (("parallel.compression=bf16", ORDERED), "leave out compression"),
        (("parallel.virtual_ranks=2", "balance.speeds=[1]"), "virtual ranks are all equally fast"),
    ],
)
def test_what_does_not_go_together_is_said(config, tmp_path, options, said):
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", *options)
    assert result.returncode == 2
    assert said in result.stderr
