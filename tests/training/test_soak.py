"""A run that is stopped again and again, in every manner, on changing numbers of ranks, is the uninterrupted run."""

import json
import random
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from soak import live, seen_by_epoch

pytestmark = pytest.mark.mpi


@pytest.mark.slow
@pytest.mark.parametrize(("stops", "steps"), [(7, 1200), (36, 4000)])
def test_a_run_stopped_at_random_moments(config, train, lines, tmp_path, stops, steps):
    chance = random.Random(stops)
    overrides = [f"steps={steps}", "checkpoint.every_steps=4", "evaluate.every_steps=60", "record_samples=true"]
    overrides += ["optimizer.lr=1e-4"]  # at a high rate training amplifies rounding itself, stopped or not
    run = tmp_path / "soak"
    lives = [
        live(run, 1 + number % 3, [config, f"run_dir={run}", *overrides], chance, number) for number in range(stops)
    ]
    clean = {"stop_by_file", "terminate_all", "signal_one"}
    for each in lives:
        assert (each.returncode == 0) == (each.how in clean), f"{each.how}: {each.returncode}\n{each.output}"
        assert "Traceback" not in each.output, each.output
    train("soak", 2, *overrides)
    whole = train("whole", 2, *overrides)
    assert len({line["life"] for line in lines(run)}) > stops // 2  # they really were lives of one run
    assert last(lines(run)).keys() == set(range(1, steps + 1))
    seen, expected = seen_by_epoch(run), seen_by_epoch(whole)
    assert seen == expected
    samples = set(expected[0])
    for epoch in range(max(expected)):  # the last one may be cut by the number of steps
        assert seen[epoch] == Counter(samples), f"epoch {epoch}"
    losses, wholes = last(lines(run)), last(lines(whole))
    assert losses == pytest.approx(wholes, rel=1e-6)
    one, other = (json.loads((each / "DONE").read_text())["loss"] for each in (run, whole))
    assert one == pytest.approx(other, rel=1e-6)
    name = f"checkpoints/step-{steps:06d}/model.safetensors"
    for key, value in load_file(whole / name).items():
        torch.testing.assert_close(load_file(run / name)[key], value, rtol=1e-6, atol=1e-9)


def last(records: list[dict]) -> dict[int, float]:
    """Loss of each step by the last life that took it."""
    return {record["step"]: record["loss"] for record in records}
