"""Which runs a comparison is made of, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
from comparison_runs import write_config
from ranks import ROOT

from matsci_hpc.comparison.plan import load_comparison, plan_comparison
from matsci_hpc.comparison.show import show_comparison
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.study_submit import submit_runs


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A function that gives the runs of a comparison with some keys changed."""
    monkeypatch.chdir(tmp_path)

    def runs(**changes):
        return plan_comparison(load_comparison(write_config(tmp_path, **changes)), load_site("local"))

    return runs


def test_every_combination_is_a_run_and_pairs_stand_together(planned):
    runs = planned()
    assert [(run.seed, run.size, run.arm) for run in runs] == [
        (seed, size, arm) for seed in (1, 2, 3) for size in (100, "full") for arm in ("scratch", "pretrained")
    ]
    assert runs[0].name == "arm=scratch_samples=100_seed=1"
    for run in runs:
        config = run.training
        assert config.seed == run.seed
        assert config.steps == 20
        assert config.run_dir == Path.cwd() / "comparisons/small/runs" / run.name
        assert config.init_from == (Path("runs/pretrain") if run.arm == "pretrained" else None)
        subset = config.data.subset
        assert (subset is None) == (run.size == "full")
        assert subset is None or (subset.samples, subset.seed) == (100, run.seed)
        assert (config.evaluate.final_split, config.evaluate.final_weights) == ("test", "best")


def test_budget_by_samples_and_by_size(planned):
    assert {run.training.steps for run in planned(steps=None, samples_seen=205)} == {21}  # of 10 graphs each
    found = {(run.size, run.training.steps) for run in planned(steps=[5, 50])}
    assert found == {(100, 5), ("full", 50)}
    with pytest.raises(UserInputError, match=r"samples_seen needs batch\.graphs; with batch\.cost give steps"):
        planned(steps=None, samples_seen=205, overrides={"batch.graphs": None, "batch.cost": 5000.0})


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({}, "weights: best choose, .* or say weights: last"),
        ({"weights": "last", "tune": {"optimizer.lr": [1e-3]}}, "tune choose, .*decides nothing$"),
        ({"tune": {"optimizer.lr": [1e-3]}}, "weights: best and tune choose"),
    ],
)
def test_results_of_the_split_that_chooses_are_refused(changes, by, planned):
    with pytest.raises(UserInputError, match=rf"split: 'val' is data\.held_out of arms\.scratch, by which {by}"):
        planned(split="val", **changes)


def test_each_arm_has_every_trial(planned):
    runs = planned(tune={"optimizer.lr": [1e-4, 1e-3], "schedule.warmup_steps": [0, 5]}, seeds=[1], train_samples=[100])
    assert [(run.arm, run.trial) for run in runs] == [(arm, n) for n in range(4) for arm in ("scratch", "pretrained")]
    assert {(run.trial, run.training.optimizer.lr, run.training.schedule.warmup_steps) for run in runs} == {
        (0, 1e-4, 0), (1, 1e-4, 5), (2, 1e-3, 0), (3, 1e-3, 5),
    }  # fmt: skip


def arms(**overrides):
    return {"scratch": {}, "pretrained": {"init_from": "runs/pretrain", "overrides": overrides}}


@pytest.mark.parametrize(
    ("key", "value", "was"),
    [
        ("batch.graphs", 20, "10"),
        ("model.layers", 3, "5"),
        ("precision", "bf16", "float32"),
        ("evaluate.every_steps", 10, "250"),
        ("max_time_s", 60.0, "None"),
        ("data.block", 4, "1"),
        ("average.decay", 0.99, "None"),
        ("data.train", ["datasets/others"], "['datasets/crystals']"),
    ],
)
def test_unequal_budgets_are_refused_by_the_key_that_differs(key, value, was, planned):
    with pytest.raises(UserInputError) as refused:
        planned(arms=arms(**{key: value}))
    said = str(refused.value)
    assert said.startswith(f"arms.pretrained: {key} is {value}, and {was} in arms.scratch: arms are compared at equal")
    assert said.endswith(f"or say allow: [{key}]")
    assert len(planned(arms=arms(**{key: value}), allow=[key])) == 12
    assert len(planned(arms=arms(**{key: value}), allow=[key.partition(".")[0]])) == 12


def test_learning_rates_may_differ_where_that_is_declared(planned):
    runs = planned(arms=arms(**{"optimizer.lr": 1e-4, "schedule.warmup_steps": 7}))
    assert {(run.arm, run.training.optimizer.lr) for run in runs} == {("scratch", 1e-3), ("pretrained", 1e-4)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"samples_seen": 10}, "give either steps or samples_seen, not both"),
        ({"steps": None}, "give either steps or samples_seen"),
        ({"steps": [1, 2, 3]}, "steps: 3 numbers for 2 train_samples"),
        ({"seeds": [1, 1]}, "seeds: 1 stands twice"),
        ({"train_samples": ["full", "full"]}, "train_samples: full stands twice"),
        ({"arms": {"scratch": {}}}, "arms: dictionary should have at least 2 items"),
        ({"arms": {"scratch": {}, "../up": {}}}, "'../up' is no name of an arm"),
        ({"overrides": {"seed": 4}}, "overrides: seed is decided by the comparison itself"),
        ({"arms": arms(**{"data.subset.seed": 4})}, "arms.pretrained.overrides: data.subset.seed is decided by the"),
        ({"tune": {"steps": [4, 5]}}, "tune: steps is decided by the comparison itself"),
        (
            {"tune": {"optimizer.lr": [1e-3]}, "arms": arms(**{"optimizer.lr": 1.0})},
            "optimizer.lr is tuned for every arm alike",
        ),
        ({"metric": {"name": "mae"}}, "mae is of a target; give target"),
        ({"metric": {"target": "gap", "name": "charm"}}, "whether charm is better lower or higher is not known"),
        ({"sizes": [3]}, "unknown key sizes"),
        ({"base": "prep.yaml"}, "base: prep.yaml is no config of a training run"),
    ],
)
def test_comparisons_that_cannot_be(changes, says, planned, tmp_path):
    prep = {"source": {"kind": "symmetry", "samples": 8}, "out": "datasets/x", "neighbors": {"cutoff": 2.0}}
    (tmp_path / "prep.yaml").write_text(json.dumps(prep))
    with pytest.raises(UserInputError, match=re.escape(says)):
        planned(**changes)


def test_the_plan_is_a_table_and_writes_nothing(planned, tmp_path):
    planned()
    before = sorted(tmp_path.rglob("*"))
    lines = show_comparison(load_comparison(tmp_path / "comparison.yaml")).splitlines()
    assert lines[0] == (
        "scratch against pretrained: 12 runs of train.yaml, below comparisons/small/runs; the arms have equal budgets"
    )
    assert len(lines) == 2 + 12
    assert re.search(r"12  pretrained +full +3  - +20  10 graphs  runs/pretrain +\d +-  to be run", lines[-1])
    assert sorted(tmp_path.rglob("*")) == before


def test_the_runs_are_one_array_on_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "slurm.yaml").write_text("scheduler: slurm\nranks_per_node: 2\n")
    source = {"kind": "symmetry", "samples": 48}
    prep = {"source": source, "out": "datasets/crystals", "neighbors": {"cutoff": 2.0}}
    (tmp_path / "prep.yaml").write_text(json.dumps(prep))
    checked = load_comparison(write_config(tmp_path, prepare=["prep.yaml"], overrides={"job.ranks": 2}))
    before = sorted(tmp_path.rglob("*"))
    submit_runs(
        checked, lambda site: plan_comparison(checked, site), "./slurm.yaml", via="script", check=False, dry_run=True
    )
    assert sorted(tmp_path.rglob("*")) == before
    _, data, array = re.split(r"(?m)^#!/bin/bash\n", capsys.readouterr().out)
    assert "datasets/crystals" in data
    assert re.search(r"--array=0-11\b", array)
    assert "--dependency=afterok:<crystals>" in array
    outputs = re.findall(r"    output=\S+/(\S+)", array)
    assert outputs == [run.name for run in plan_comparison(checked, load_site("./slurm.yaml"))]
    assert array.count('init_from="runs/pretrain"') == array.count("init_from=null") == 6
    with pytest.raises(UserInputError, match="`matsci-hpc compare run` runs the comparison on this machine"):
        submit_runs(
            checked, lambda site: plan_comparison(checked, site), "local", via="script", check=False, dry_run=True
        )


SHIPPED = [*(ROOT / "job_templates/comparisons").glob("*.yaml"), *ROOT.glob("scaling_studies/*/comparison.yaml")]


@pytest.mark.parametrize("path", sorted(SHIPPED), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_comparisons_can_be_planned(path):
    assert len(plan_comparison(load_comparison(path), load_site("local"))) > 1
