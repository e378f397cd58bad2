"""One rank and many ranks are the same computation."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import run_command
from safetensors.torch import load_file

from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.plan import COST

pytestmark = pytest.mark.mpi
SAME = ("step", "epoch", "samples_seen", "lr", "graphs", "atoms", "edges")


STEPS = 50
LONG = (f"steps={STEPS}", "batch.graphs=6", "checkpoint.every_steps=25")


def newest(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")) / f"{name}.safetensors")


def assert_same_run(lines, one: Path, other: Path, steps: int = STEPS, tolerance: float = 1e-6) -> None:
    assert len(lines(one)) == len(lines(other)) == steps
    for a, b in zip(lines(one), lines(other), strict=True):
        assert {key: a[key] for key in SAME} == {key: b[key] for key in SAME}
        assert b["loss"] == pytest.approx(a["loss"], rel=tolerance)
        assert b["losses"] == pytest.approx(a["losses"], rel=tolerance)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=tolerance)
    for a, b in zip(lines(one, "evaluations"), lines(other, "evaluations"), strict=True):
        assert b["samples"] == a["samples"]
        assert b["loss"] == pytest.approx(a["loss"], rel=tolerance)
        assert b["confusion"] == a["confusion"]
        for target, metrics in a["metrics"].items():
            for metric, number in metrics.items():
                expected = number if isinstance(number, str | None) else pytest.approx(number, rel=tolerance)
                assert b["metrics"][target][metric] == expected, (target, metric)
    # Of AdamW's state, exp_avg is a running mean of the gradients, so every gradient of every step is compared.
    for kind in ("model", "optimizer"):
        values, others = newest(one, kind), newest(other, kind)
        assert values.keys() == others.keys()
        for name, value in values.items():
            if value.is_floating_point():
                scale = float(value.abs().max())
                torch.testing.assert_close(others[name], value, rtol=tolerance, atol=tolerance * scale + 1e-30)


@pytest.fixture(scope="module")
def one_rank(train_in, tmp_path_factory) -> Path:
    """50 steps of six graphs on one rank, with two graphs in the last step of an epoch."""
    return train_in(tmp_path_factory.mktemp("exact") / "one", 1, *LONG)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_many_ranks_agree_with_one(one_rank, train, lines, ranks):
    many = train("many", ranks, *LONG)
    assert lines(many)[0]["ranks"] == ranks
    assert min(line["graphs"] for line in lines(many)) == 2  # of three or four ranks, some have no work then
    assert_same_run(lines, one_rank, many)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_joined_by_mpi_agree_with_one(one_rank, train, lines, ranks):
    many = train("many", ranks, *LONG, "parallel.backend=mpi")
    assert lines(many)[0]["ranks"] == ranks
    assert_same_run(lines, one_rank, many)


@pytest.mark.parametrize(
    ("ranks", "parts"), [(1, "batch.micro_batches=3"), (2, "batch.micro_batches=2"), (1, "batch.micro_cost=500")]
)
def test_a_batch_in_parts_is_the_whole_batch(one_rank, train, lines, ranks, parts):
    assert_same_run(lines, one_rank, train("parts", ranks, *LONG, parts))


@pytest.mark.parametrize(
    ("ranks", "backend", "options"),
    [
        (2, "gloo", ("parallel.bucket_mb=1e-6",)),  # each gradient by itself
        (3, "mpi", ("parallel.bucket_mb=0.002", "batch.micro_batches=2")),
        (2, "gloo", ("parallel.bucket_mb=0.002", "parallel.overlap=false")),
    ],
)
def test_gradients_may_travel_in_any_pieces(one_rank, train, lines, ranks, backend, options):
    many = train("many", ranks, *LONG, f"parallel.backend={backend}", *options)
    assert_same_run(lines, one_rank, many)
    assert all(line["comm_in_flight_s"] > 0 for line in lines(many))
    assert all(line["comm_in_flight_s"] == 0 for line in lines(one_rank))


@pytest.mark.parametrize(("compression", "tolerance"), [("bf16", 2e-2), ("fp16", 2e-3)])
def test_compressed_gradients_learn_nearly_the_same(one_rank, train, lines, compression, tolerance):
    many = train("many", 2, *LONG, f"parallel.compression={compression}")
    losses, exact = ([line["loss"] for line in lines(run)] for run in (many, one_rank))
    assert losses == pytest.approx(exact, rel=tolerance)
    assert losses != exact


# What decides the global batches knows nothing of ranks, and what divides them changes nothing but rounding.
PLANS = {
    "cost": ("batch={cost: 2500}",),
    "grouped": ("batch={graphs: 6, grouping: similar, group_above: 700}",),
    "blocks": ("batch.graphs=6", "data.block=4"),
    "fitted": ("batch.graphs=6", "balance.fit=true"),
}


@pytest.mark.parametrize("plan", PLANS)
def test_every_kind_of_plan_is_the_same_on_many_ranks(train, lines, plan):
    options = ("steps=30", *PLANS[plan])
    one = train("one", 1, *options)
    assert_same_run(lines, one, train("three", 3, *options), steps=30)


def test_ranks_of_unequal_speed_agree_with_one(one_rank, train, lines, crystals):
    unequal = train("unequal", 2, *LONG, "balance.speeds=[3, 1]", "record_samples=true")
    assert_same_run(lines, one_rank, unequal)
    data = Collection([crystals])
    costs = []
    for path in sorted((unequal / "samples").iterdir()):
        samples = np.array([each for line in path.read_text().splitlines() for each in json.loads(line)["samples"]])
        costs.append(COST.of(data.atoms(samples), data.edges(samples)).sum())
    assert costs[0] == pytest.approx(3 * costs[1], rel=0.3)


def test_the_same_run_twice_is_the_same_to_the_last_bit(whole, train, lines):
    first, second = whole(2), train("second", 2)
    assert [line["loss"] for line in lines(first)] == [line["loss"] for line in lines(second)]
    for name, value in newest(first).items():
        assert torch.equal(newest(second)[name], value)


def test_torchrun_agrees_with_one_rank(whole, config, lines, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = run_command([*launcher, "-m", "matsci_hpc", "train", str(config), f"run_dir={tmp_path / 'torchrun'}"])
    assert result.returncode == 0, result.stderr
    assert_same_run(lines, whole(1), tmp_path / "torchrun", steps=20)


def test_bf16_runs_on_two_ranks_and_learns_the_same_samples(whole, train, lines):
    exact, rough = whole(1), train("rough", 2, "precision=bf16")
    assert [line["samples_seen"] for line in lines(exact)] == [line["samples_seen"] for line in lines(rough)]
    assert lines(rough)[0]["loss"] == pytest.approx(lines(exact)[0]["loss"], rel=0.05)
    assert {value.dtype for value in newest(rough).values()} == {torch.float32}
