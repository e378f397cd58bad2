"""How the records of a comparison are read: which runs are taken, what is said of them, what is refused."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from comparison_runs import FULL, write_config, write_pretraining, write_runs
from scipy import stats

from matsci_hpc.analysis.comparison_tables import comparison_sheets
from matsci_hpc.analysis.words import MISSING
from matsci_hpc.comparison.collect import collect_comparison, points_csv
from matsci_hpc.comparison.notes import verdict_of
from matsci_hpc.comparison.plan import load_comparison
from matsci_hpc.errors import UserInputError
from matsci_hpc.resources import shipped

ENCODER = shipped("scaling_studies") / "symmetry_learning/model/encoder.safetensors"


def gap(run):
    """Pretrained is better by 0.1 with few samples, and by nothing with many, but for noise of seed and arm."""
    gain = 0.1 if run.arm == "pretrained" and run.size == 100 else 0.0
    wobble = 0.01 * ((run.seed ** len(run.arm) + len(str(run.size))) % 3 - 1)
    return {"mae": 0.5 + 0.05 * run.seed - gain + wobble, "auroc": 0.9}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a comparison and its records, and collects it."""
    monkeypatch.chdir(tmp_path)
    write_pretraining(tmp_path / "runs/pretrain")

    def made(values=gap, held_out=None, after=None, **changes):
        path = write_config(tmp_path, **changes)
        runs = write_runs(path, values, held_out=held_out)
        if after is not None:
            after(runs)
        return collect_comparison(load_comparison(path))

    return made


def test_verdicts_by_known_values(written):
    found = written()
    few, full = found.points
    assert (few.samples, full.samples) == (100, FULL)
    assert [each.paired.verdict for each in (*few.against, *full.against)] == ["better", "cannot be told"]
    differences = [
        gap(next(each.run for each in found.taken if (each.run.arm, each.run.seed, each.run.size) == (arm, seed, 100)))[
            "mae"
        ]
        for arm in ("pretrained", "scratch")
        for seed in (1, 2, 3)
    ]
    expected = np.subtract(differences[:3], differences[3:])
    assert few.against[0].paired.difference == pytest.approx(expected.mean())
    assert few.unit == "eV"
    assert few.untrained == pytest.approx(1.5)
    higher = written_again(found, better="higher")
    assert higher.points[0].against[0].paired.verdict == "worse"


def written_again(found, **metric):
    """The same records by another metric."""
    changed = found.comparison.model_copy(update={"metric": found.comparison.metrics[0].model_copy(update=metric)})
    return collect_comparison(changed)


def test_the_cost_of_pretraining_is_told(written):
    found = written()
    (cost,) = found.pretraining["pretrained"]
    assert cost.node_hours == pytest.approx(2 * 3.0)  # two hosts for 10,800 s
    assert (cost.steps, cost.samples_seen) == (5000, 320000)
    assert not any("learned from a data set" in note for note in found.notes)
    assert found.results[0].node_hours == pytest.approx(0.01)


def test_a_chain_of_pretraining_is_followed(written, tmp_path):
    write_pretraining(tmp_path / "runs/second", init_from="runs/pretrain")
    arms = {"scratch": {}, "pretrained": {"init_from": "runs/second/checkpoints/step-000001"}}
    found = written(arms=arms)
    assert [Path(cost.run).name for cost in found.pretraining["pretrained"]] == ["second", "pretrain"]
    told = written_arms(found, str(ENCODER))
    (cost,) = told.pretraining["pretrained"]
    assert (cost.steps, cost.samples_seen, cost.nodes) == (15_625, 2_000_000, 1)
    assert 0.5 < cost.node_hours < 2
    (tmp_path / "other.safetensors").write_bytes(b"\0" * 16)
    damaged = written_arms(found, "other.safetensors")
    assert any("not known: other.safetensors: cannot be read as a model" in note for note in damaged.notes)
    gone = written_arms(found, "runs/gone")
    assert any("what its pretraining cost is not known: runs/gone is not a directory" in note for note in gone.notes)


def written_arms(found, init_from):
    """The same comparison, whose runs were made with an encoder that is gone since."""
    pretrained = found.comparison.arms["pretrained"].model_copy(update={"init_from": Path(init_from)})
    for run in (Path("comparisons/small/runs")).glob("arm=pretrained*"):
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("runs/second/checkpoints/step-000001", init_from))
    arms = found.comparison.arms | {"pretrained": pretrained}
    return collect_comparison(found.comparison.model_copy(update={"arms": arms}))


def change_line(file, place, **changes):
    """Change one line of one run's records."""

    def change(runs):
        path = runs[-1].job.output / file
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[place] |= changes
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return change


@pytest.mark.parametrize(
    ("file", "place", "changes", "says"),
    [
        ("metrics.jsonl", -1, {"samples_seen": 150}, "differ in samples_seen: 200 and 150"),
        ("metrics.jsonl", -1, {"skipped_steps": 2}, "differ in skipped_steps: 0 and 2"),
        ("evaluations.jsonl", 0, {"split": "other"}, "differ in evaluations: 2 and 1"),
        ("evaluations.jsonl", -1, {"samples": 49}, "differ in test_samples: 50 and 49"),
    ],
)
def test_unequal_work_is_refused_by_the_records(file, place, changes, says, written):
    with pytest.raises(UserInputError, match=f"are compared and {says}"):
        written(after=change_line(file, place, **changes))


@pytest.mark.parametrize("what", ["code", "data"])
def test_other_code_and_other_data_are_refused(what, written):
    def change(runs):
        output = runs[-1].job.output
        if what == "code":
            (output / "provenance.json").write_text(json.dumps({"matsci_hpc": "0.0.9"}))
        else:
            (output / "data.json").write_text(json.dumps([{"fingerprint": "others", "splits": {"train": FULL}}]))

    with pytest.raises(UserInputError, match=f"are compared and differ in {what}: .* or say allow: \\[{what}\\]"):
        written(after=change)


def test_a_run_that_diverged_is_left_out_and_said(written):
    metrics = {"samples": 50, "mae": None, "unit": "eV"}
    found = written(after=change_line("evaluations.jsonl", -1, metrics={"gap": metrics}))
    name = "arm=pretrained_samples=full_seed=3"
    assert found.incomplete == {name: "diverged: gap mae is no finite number"}
    assert found.points[1].against[0].paired.seeds == 2
    assert found.notes[0] == (
        "pretrained, full training samples: diverged with 1 of 3 seeds; the numbers of this arm are of the other seeds."
    )
    assert not any(note.startswith("Not among the results") for note in found.notes)


def diverge(*broken, absent=()):
    """Make records of runs, by arm, size, trial and seed, those of runs that diverged; others are not there at all."""

    def change(runs):
        for run in runs:
            place = (run.arm, run.size, run.trial, run.seed)
            if place in broken:
                (run.job.output / "DONE").unlink()
                (run.job.output / "nonfinite/step-000003").mkdir(parents=True)
                (run.job.output / "STOPPED").write_text("step 3: the loss (nan) is not finite\n")
            if place in absent:
                shutil.rmtree(run.job.output)

    return change


def by_trial(run):
    """The second learning rate is by far the best where it does not diverge."""
    return {"mae": gap(run)["mae"] - 0.3 * run.trial}


TUNED = {"tune": {"optimizer.lr": [1e-4, 1e-2]}, "train_samples": [100]}


def test_a_trial_that_diverged_is_not_taken_for_its_lucky_seeds(written):
    found = written(by_trial, after=diverge(("scratch", 100, 1, 2)), **TUNED)
    chosen = {(each.run.arm, each.run.trial, each.run.seed) for each in found.taken}
    assert chosen == {("scratch", 0, seed) for seed in (1, 2, 3)} | {("pretrained", 1, seed) for seed in (1, 2, 3)}
    assert found.notes[0] == "scratch, 100 training samples, optimizer.lr=0.01: diverged with 1 of 3 seeds."


def test_fewer_seeds_diverged_is_better_than_more(written):
    broken = [("scratch", 100, 0, 1), ("scratch", 100, 0, 2), ("scratch", 100, 1, 2)]
    found = written(by_trial, after=diverge(*broken), **TUNED)
    assert {each.run.trial for each in found.taken if each.run.arm == "scratch"} == {1}
    assert found.points[0].against[0].paired.seeds == 2


def test_all_seeds_diverged_is_said_and_not_run_yet_is_another_thing(written):
    broken = [("scratch", 100, 1, seed) for seed in (1, 2, 3)]
    found = written(by_trial, after=diverge(*broken, absent=[("pretrained", 100, 0, 3)]), **TUNED)
    assert found.notes[0] == "scratch, 100 training samples, optimizer.lr=0.01: diverged with every seed."
    (missing,) = [note for note in found.notes if note.startswith("Not among the results")]
    assert "1 run: arm=pretrained_samples=100_seed=3_optimizer.lr=0.0001: not run yet" in missing
    reasons = {name: reason for name, reason in found.incomplete.items() if "arm=scratch" in name}
    assert len(reasons) == 3
    assert all(reason.startswith("diverged: broken off: step 3: the loss (nan)") for reason in reasons.values())
    assert {each.run.trial for each in found.taken if each.run.arm == "pretrained"} == {1}
    (sheet,) = [each for each in comparison_sheets(found) if each.title == "Tuning"]
    cells = [[cell.text for cell in row] + [row[3].remark] for row in sheet.rows]
    assert ["scratch", "100", "optimizer.lr=0.01", "0", MISSING, "", "3 diverged"] in cells


def test_a_finding_that_does_not_survive_the_other_comparisons_is_none(written):
    """One of two has p = 0.035 by itself: differences of 0.12, 0.18 and 0.24."""

    def values(run):
        if run.arm == "scratch":
            return {"mae": 0.9}
        return {"mae": 0.9 - (0.06 + 0.06 * run.seed if run.size == 100 else 0.1 * (-1) ** run.seed)}

    found = written(values)
    (against,) = found.points[0].against
    assert against.paired.p == pytest.approx(stats.ttest_1samp([0.12, 0.18, 0.24], 0).pvalue)
    assert (against.paired.verdict, against.verdict) == ("better", "cannot be told")
    assert against.holm == pytest.approx(2 * against.paired.p)
    said = verdict_of(found.points[0], against, "scratch")
    assert "whether pretrained is better or worse than scratch cannot be told" in said
    assert "By itself its interval says better, but this does not survive" in said
    rows = csv.DictReader(io.StringIO(points_csv(found).decode()))
    assert {row["verdict"] for row in rows} == {"", "cannot be told"}
    assert [row[8].text for row in comparison_sheets(found)[0].rows] == ["cannot be told"] * 2


def test_equal_differences_are_noted_and_no_certainty(written):
    found = written(lambda run: {"mae": 0.5 if run.arm == "scratch" else 0.25})
    (against,) = found.points[0].against
    assert (against.paired.difference, against.paired.p, against.verdict) == (-0.25, None, "cannot be told")
    assert "the difference is -0.25 eV with each of 3 seeds" in verdict_of(found.points[0], against, "scratch")
    assert any("the difference is the same with every seed" in note for note in found.notes)


def test_results_of_a_split_that_was_evaluated_all_along_are_noted(written):

    def relabel(runs):
        for run in runs:
            path = run.job.output / "evaluations.jsonl"
            path.write_text(path.read_text().replace('"test"', '"val"'))

    found = written(after=relabel, split="val", weights="last")
    assert "The results are of split 'val', which the runs were evaluated on all along" in found.notes[0]


def test_a_metric_that_nobody_recorded(written):
    with pytest.raises(UserInputError, match=r"no gap f1 in evaluations\.jsonl; target gap has .*mae, auroc"):
        written(metric={"target": "gap", "name": "f1"})


def test_the_trial_is_chosen_on_the_held_out_split(written):
    """The first learning rate is better on the test split, the second on the held-out one: it is taken."""

    def test_values(run):
        return {"mae": gap(run)["mae"] + 0.2 * run.trial}

    def held_out(run):
        return {"mae": gap(run)["mae"] - 0.2 * run.trial * (run.arm == "scratch")}

    found = written(test_values, held_out, tune={"optimizer.lr": [1e-3, 1e-4]})
    assert len(found.results) == 24
    chosen = {(each.run.arm, each.run.tuned["optimizer.lr"]) for each in found.taken}
    assert chosen == {("scratch", 1e-4), ("pretrained", 1e-3)}
    assert len(found.taken) == 12


def test_baselines_of_something_else_are_refused(written, tmp_path):
    def write(split, data):
        text = f"target,metric,train_samples,name,value,split,data\ngap,mae,100,forest,0.7,{split},{data}\n"
        (tmp_path / "baselines.csv").write_text(text)

    write("test", "crystals")
    found = written(baselines="baselines.csv")
    assert [each.value for each in found.baselines] == [0.7]
    write("val", "crystals")
    with pytest.raises(UserInputError, match=r"forest is of split 'val' and the results are of 'test'.*--split test"):
        collect_comparison(found.comparison)
    write("test", "molecules")
    with pytest.raises(UserInputError, match="fingerprint molecules and the runs are of crystals"):
        collect_comparison(found.comparison)
    write("", "")
    assert len(collect_comparison(found.comparison).baselines) == 1


def test_baselines_stand_beside(written, tmp_path):
    text = "target,metric,train_samples,name,value,by\ngap,mae,100,forest,0.7,me\ngap,mae,400,forest,0.6,me\n"
    (tmp_path / "baselines.csv").write_text(text + "gap,mae,,published,0.3,them\nother,mae,100,forest,9,me\n")
    found = written(baselines="baselines.csv")
    assert [(each.name, each.train_samples, each.value) for each in found.baselines] == [
        ("forest", 100, 0.7), ("forest", 400, 0.6), ("published", None, 0.3), ("forest", 100, 9.0),
    ]  # fmt: skip
    (tmp_path / "baselines.csv").write_text("target,metric,name,value\n")
    with pytest.raises(UserInputError, match=r"baselines: baselines.csv has no column train_samples"):
        collect_comparison(found.comparison)
    (tmp_path / "baselines.csv").write_text("target,metric,train_samples,name,value\ngap,mae,few,x,1\n")
    with pytest.raises(UserInputError, match=r"baselines\.csv:2: value and train_samples are numbers"):
        collect_comparison(found.comparison)
