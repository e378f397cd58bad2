"""Several data sets and targets at once, on real ranks: who is seen how often, and whose loss counts."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from ranks import run_ranks
from soak import seen_by_epoch

from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.divide import divide

pytestmark = pytest.mark.mpi


def mixed(crystals: Path, clouds: Path, repeats: str) -> tuple[str, ...]:
    return (
        f"data={{train: [{{path: {crystals}, repeat: 1}}, {{path: {clouds}, {repeats}}}]}}",
        "batch.graphs=9",
        "steps=40",
        "record_samples=true",
    )


def test_each_sample_is_seen_as_often_as_stated_on_any_number_of_ranks(crystals, clouds, train, lines):
    options = mixed(crystals, clouds, "repeat: 1.5")
    runs = [train(f"on{ranks}", ranks, *options) for ranks in (1, 3)]
    data = Collection([crystals, clouds])
    first, second = (data.select("train", d, np.arange(n)) for d, n in enumerate(data.split_counts("train")))
    seen = seen_by_epoch(runs[0])
    assert seen == seen_by_epoch(runs[1])
    whole = sorted(seen)[:-1]  # the last epoch is cut by the number of steps
    assert len(whole) >= 3
    for epoch in whole:
        assert [seen[epoch][s] for s in first.tolist()] == [1] * len(first)
        counts = Counter(seen[epoch][s] for s in second.tolist())
        assert counts.keys() == {1, 2}
        assert abs(counts[2] - len(second) / 2) <= 0.5
    twice = seen[0] + seen[1]
    assert {twice[s] for s in second.tolist()} == {3}
    for a, b in zip(*map(lines, runs), strict=True):
        assert (a["graphs"], a["samples_seen"]) == (b["graphs"], b["samples_seen"])
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-6)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-6)


def test_samples_without_a_target_do_not_touch_its_loss(crystals, clouds, train, lines):
    """Full batches, one target: clouds that do not carry it change neither loss nor gradient, on any rank."""
    options = ("batch.graphs=1000", "steps=5", "targets={gap: {}}", "evaluate.every_steps=5")
    alone = train("alone", 1, f"data={{train: [{crystals}]}}", *options)
    both = train("both", 2, f"data={{train: [{crystals}, {clouds}]}}", *options)
    for a, b in zip(lines(alone), lines(both), strict=True):
        assert b["graphs"] > a["graphs"]
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-9)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-9)
    held_out = [lines(run, "evaluations")[-1]["metrics"]["gap"] for run in (alone, both)]
    assert held_out[1]["samples"] == held_out[0]["samples"]
    assert held_out[1]["mae"] == pytest.approx(held_out[0]["mae"], rel=1e-9)


def test_the_mixture_is_said_and_contradictions_are_refused(crystals, clouds, config, tmp_path):
    entries = f"[{{path: {crystals}, weight: 1}}, {{path: {clouds}, weight: 1}}]"
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"data.train={entries}", "steps=1"]
    result = run_ranks(1, *words)
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stdout.splitlines() if "times an epoch" in line]
    assert len(told) == 2
    assert "1 times an epoch" in told[0]
    refused = run_ranks(1, *words, "data.temperature=2")
    assert refused.returncode == 2
    assert "leave out weight" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_fitted_cost_is_saved_and_a_resumed_run_divides_by_it(crystals, train):
    """The times of this machine decide what is fitted, so the test asks the run's own checkpoint."""
    options = ("balance.fit=true", "batch.graphs=20", "record_samples=true", "steps=1000")
    run = train("fitted", 2, *options, "max_time_s=2")
    state = json.loads((newest(run) / "state.json").read_text())["run"]
    assert state["step_in_epoch"] >= 0
    train("fitted", 2, *options, f"steps={state['step'] + 2}")
    data = Collection([crystals])
    by_step: dict[int, dict[int, list[int]]] = defaultdict(dict)
    for rank in (0, 1):
        for line in (run / "samples" / f"rank-{rank:05d}.jsonl").read_text().splitlines():
            record = json.loads(line)
            by_step[record["step"]][rank] = record["samples"]
    shares = by_step[state["step"] + 1]
    cost = CostModel(atom=state["atom_cost"])
    loads = [cost.of(data.atoms(samples), data.edges(samples)).sum() for samples in map(np.array, shares.values())]
    together = np.concatenate([np.array(samples, dtype=np.int64) for samples in shares.values()])
    costs = cost.of(data.atoms(together), data.edges(together))
    # A step may be short, so that no division is even: what counts is that it is the one of the fitted cost.
    assert sorted(loads) == pytest.approx(sorted(costs[mine].sum() for mine in divide(costs, 2)))


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))
