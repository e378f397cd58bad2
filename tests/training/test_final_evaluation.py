"""Runs on a part of the data, and the split that is evaluated once, at the end."""

import shutil

import numpy as np
import pytest
from ranks import run_ranks

from matsci_hpc.config.data import Data
from matsci_hpc.loading.opening import open_collection

pytestmark = pytest.mark.mpi
# The learning rate explodes after the best evaluation, at step 8 of 12.
FINAL = ("evaluate.final_split=val", "evaluate.every_steps=4", "steps=12")


@pytest.fixture(scope="module")
def spoilt(train_in, tmp_path_factory):
    """A run that was best in the middle and is then spoilt, evaluated by its best and by its last parameters."""
    folder = tmp_path_factory.mktemp("spoilt")
    begun = train_in(folder / "begun", 1, "evaluate.every_steps=4", "steps=8", "optimizer.lr=1.0e-2")
    runs = {}
    for weights in ("best", "last"):
        for ranks in (1, 2):
            copy = shutil.copytree(begun, folder / f"{weights}{ranks}")
            spoil = ("optimizer.lr=3.0", "optimizer.clip_norm=null", "schedule.warmup_steps=0")
            runs[weights, ranks] = train_in(copy, ranks, *FINAL, f"evaluate.final_weights={weights}", *spoil)
    return runs


@pytest.mark.parametrize("weights", ["best", "last"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_end_is_evaluated_by_the_best_or_the_last_parameters(weights, ranks, spoilt, lines):
    *during, final = lines(spoilt[weights, ranks], "evaluations")
    losses = {line["step"]: line["loss"] for line in during}
    best = min(losses, key=losses.__getitem__)
    assert best < 12
    assert losses[best] < losses[12]
    assert (final["chosen"], final["step"], final["split"]) == (weights, 12, "val")
    assert final["weights_step"] == (best if weights == "best" else 12)
    # The split is the held-out one here, so that what it should be is known.
    expected = next(line for line in during if line["step"] == final["weights_step"])
    assert final["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    assert final["samples"] == expected["samples"]


def test_averaged_parameters_are_those_of_the_best_step(train, lines):
    run = train("averaged", 1, *FINAL, "average.decay=0.5", "optimizer.lr=0.3", "optimizer.clip_norm=null")
    *during, final = lines(run, "evaluations")
    expected = next(line for line in during if line["step"] == final["weights_step"])
    assert final["loss"] == pytest.approx(expected["loss"], rel=1e-9)
    assert final["weights"] == "average"


def test_a_life_that_ended_before_the_end_is_made_up_for(train, lines):
    run = train("again", 1, *FINAL)
    before = lines(run, "evaluations")
    (run / "DONE").unlink()
    text = (run / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (run / "evaluations.jsonl").write_text("".join(text[:-1]))
    train("again", 2, *FINAL)
    final = lines(run, "evaluations")[-1]
    assert final["loss"] == pytest.approx(before[-1]["loss"], rel=1e-9)
    assert (final["split"], final["weights_step"]) == ("val", before[-1]["weights_step"])


def test_one_rank_and_two_learn_from_the_same_part(crystals, train, lines):
    options = ("data.subset={samples: 20, seed: 3}", "record_samples=true", "steps=9")
    one, two = train("one", 1, *options), train("two", 2, *options)
    subset = open_collection(Data.model_validate({"train": [str(crystals)], "subset": {"samples": 20, "seed": 3}}))
    allowed = subset.in_split("train").tolist()
    seen = [number for line in lines(one, "samples/rank-00000") for number in line["samples"]]
    assert sorted(set(seen)) == allowed
    losses = [[line["loss"] for line in lines(run)] for run in (one, two)]
    np.testing.assert_allclose(*losses, rtol=1e-9)
    other = run_ranks(1, "train", one / "config.yaml", "data.subset={samples: 21, seed: 3}", "steps=10")
    assert (other.returncode, "another 'data'" in other.stderr) == (2, True), other.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate.final_split=train"], "evaluate.final_split: 'train' is trained on"),
        (["evaluate.final_split=tset"], "evaluate.final_split: no sample in split 'tset'"),
        (
            ["evaluate.final_split=val", "data.held_out=null"],
            "final_weights: the best parameters are those of the lowest",
        ),
        (["data.subset={samples: 1000}"], "data.subset: 1,000 samples, and the training split has"),
    ],
)
def test_what_cannot_be_evaluated_is_said_at_once(words, says, config, tmp_path):
    done = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", *words)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
