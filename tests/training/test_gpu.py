"""Runs on a GPU: the numbers of the processor, and the same ones every time."""

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
GPU, CPU = "device=cuda", "device=cpu"


def losses(lines, run) -> list[float]:
    return [line["loss"] for line in lines(run)]


@pytest.fixture(scope="module")
def on_gpu(train_in, tmp_path_factory):
    """20 steps in float64."""
    return train_in(tmp_path_factory.mktemp("gpu") / "run", 1, GPU)


def test_the_same_losses_as_on_the_processor(on_gpu, train, lines):
    cpu = train("cpu", 1, CPU)
    assert losses(lines, on_gpu) == pytest.approx(losses(lines, cpu), rel=1e-6)
    for a, b in zip(lines(cpu, "evaluations"), lines(on_gpu, "evaluations"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("optimize", ["none", "compile"])
def test_the_same_run_twice_is_bit_identical(train, lines, precision, optimize):
    options = (GPU, f"precision={precision}", f"optimize={optimize}", "kernels=triton")
    runs = [train(name, 1, *options) for name in ("one", "other")]
    assert losses(lines, runs[0]) == losses(lines, runs[1])
    one, other = (load_file(run / "checkpoints" / "step-000020" / "model.safetensors") for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("change", ["precision=bf16", "precision=float32", "optimize=compile", "kernels=segment"])
def test_other_ways_give_nearly_the_same(on_gpu, train, lines, change):
    tolerance = {"precision=bf16": 5e-2, "precision=float32": 1e-3}.get(change, 1e-6)
    assert losses(lines, train("run", 1, GPU, change)) == pytest.approx(losses(lines, on_gpu), rel=tolerance)


@pytest.mark.parametrize("order", [(GPU, CPU), (CPU, GPU)])
def test_a_run_goes_on_on_the_other_device(on_gpu, train, lines, order):
    train("run", 1, order[0], "max_time_s=0.001")
    (first,) = {line["step"] for line in lines(train("run", 1, order[0], "max_time_s=0.001"))} - {1}
    assert first == 2
    assert losses(lines, train("run", 1, order[1])) == pytest.approx(losses(lines, on_gpu), rel=1e-6)


def test_nccl_joins_ranks(on_gpu, train, lines):
    run = train("nccl", 1, GPU, "parallel.backend=nccl")
    assert losses(lines, run) == pytest.approx(losses(lines, on_gpu), rel=1e-9)


@pytest.mark.parametrize("backend", ["gloo", "mpi"])
def test_ranks_that_share_a_gpu_agree_with_one(on_gpu, train, lines, backend):
    if torch.cuda.device_count() > 1:
        pytest.skip("more than one GPU: no rank shares")
    run = train(backend, 2, GPU, f"parallel.backend={backend}")
    assert losses(lines, run) == pytest.approx(losses(lines, on_gpu), rel=1e-6)


def test_nccl_refuses_two_ranks_on_one_gpu(config, tmp_path):
    if torch.cuda.device_count() > 1:
        pytest.skip("more than one GPU: no rank shares")
    result = run_ranks(2, "train", config, f"run_dir={tmp_path / 'run'}", GPU, "parallel.backend=nccl")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "two ranks have the same one" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_gpu_run_says_of_itself(tmp_path, config, lines):
    result = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", GPU, "steps=2")
    assert f"device: cuda:0 ({torch.cuda.get_device_name(0)})" in result.stdout
    assert "sums over edges by " in result.stdout
    assert all(line["device_memory_bytes"] > 0 for line in lines(tmp_path / "run"))
