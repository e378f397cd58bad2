"""A comparison of real runs from one command to its report."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from preparation import run_program
from scipy import stats

from matsci_hpc.comparison.collect import collect_comparison
from matsci_hpc.comparison.plan import load_comparison

OUT = Path("comparisons/small")
MODEL = {"layers": 1, "width": 8, "message_width": 8, "position_width": 8, "embedding_width": 8}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder where clouds were prepared, an encoder trained, and two arms, seeds and sizes compared: one command."""
    folder = tmp_path_factory.mktemp("finished")
    source = {"kind": "symmetry", "samples": 160, "seed": 5, "groups": ["C2", "C3", "Ci"], "max_atoms": 12}
    prep = {"source": source, "out": "datasets/clouds", "shard_size": 32, "neighbors": {"cutoff": 2.5}}
    splits = {"splits": {"train": 0.7, "val": 0.15, "test": 0.15}}
    train = {
        "run_dir": "runs/base",
        "data": {"train": ["datasets/clouds"]},
        "steps": 6,
        "batch": {"graphs": 8},
        "model": MODEL,
        "evaluate": {"every_steps": 3},
        "log_every": 2,
    }
    comparison = {
        "base": "train.yaml",
        "prepare": ["prep.yaml"],
        "out": str(OUT),
        "arms": {"scratch": {}, "pretrained": {"init_from": "runs/pretrain"}},
        "seeds": [1, 2],
        "train_samples": [40, "full"],
        "samples_seen": 48,
        "overrides": {"job.ranks": 1},
        "metric": [{"target": "point_group", "name": "accuracy"}, {"name": "loss"}],
    }
    for name, config in (("prep", prep | splits), ("train", train), ("comparison", comparison)):
        (folder / f"{name}.yaml").write_text(json.dumps(config))
    made = run_program("prep", "prep.yaml", cwd=folder)
    assert made.returncode == 0, made.stderr
    pretrained = run_program("train", "train.yaml", "run_dir=runs/pretrain", "seed=99", cwd=folder)
    assert pretrained.returncode == 0, pretrained.stderr
    done = run_program("compare", "run", "comparison.yaml", cwd=folder, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A copy of it, for a test that changes something."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return load_comparison(Path("comparison.yaml"))


@pytest.mark.slow
def test_one_command_ends_in_a_table_and_a_plot(finished):
    folder, done = finished
    assert done.stdout.startswith("8 runs, 0 of them complete")
    assert "point_group accuracy" in done.stdout
    assert done.stdout.strip().endswith("comparisons/small/report/report.html")
    report = folder / OUT / "report"
    assert sorted(path.name for path in report.iterdir()) == [
        "comparison.csv", "comparison.png", "report.html", "report.md", "report.txt",
    ]  # fmt: skip
    assert (report / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (report / "report.txt").read_text().strip() in done.stdout


@pytest.mark.slow
def test_the_table_says_what_the_records_say(finished):
    folder, _ = finished
    rows = rows_of(folder / OUT / "results.csv")
    assert len(rows) == 2 * 2 * 2 * 2  # arms, seeds, sizes, metrics
    for row in rows:
        run = folder / OUT / "runs" / row["run"]
        final = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
        value = final["loss"] if row["metric"] == "loss" else final["metrics"]["point_group"]["accuracy"]
        assert float(row["value"]) == pytest.approx(value)
        assert row["samples_seen"] == "48"
        assert final["split"] == "test"
        data = json.loads((run / "data.json").read_text())[0]["splits"]
        assert int(row["train_samples"]) in {40, data["train"]}
        assert int(row["test_samples"]) == data["test"]
    points = rows_of(folder / OUT / "report/comparison.csv")
    assert len(points) == 2 * 2 * 2
    for point in points:
        values = {
            arm: [
                float(row["value"])
                for row in rows
                if (row["arm"], row["train_samples"], row["metric"]) == (arm, point["train_samples"], point["metric"])
            ]
            for arm in ("scratch", "pretrained")
        }
        assert float(point["mean"]) == pytest.approx(np.mean(values[point["arm"]]))
        if point["arm"] == "pretrained" and point["metric"] == "loss":
            test = stats.ttest_rel(values["pretrained"], values["scratch"])
            assert float(point["p_paired_t"]) == pytest.approx(test.pvalue)
            low, high = test.confidence_interval()
            assert (float(point["difference_low"]), float(point["difference_high"])) == (
                pytest.approx(low),
                pytest.approx(high),
            )


@pytest.mark.slow
def test_arms_of_a_seed_learn_from_the_same_part(finished):
    folder, _ = finished
    configs = {
        path.name: json.loads((path / "provenance.json").read_text())
        for path in (folder / OUT / "runs").iterdir()
        if "samples=40" in path.name
    }
    assert {name for name, each in configs.items() if "init_from" in each} == {
        f"arm=pretrained_samples=40_seed={seed}" for seed in (1, 2)
    }


@pytest.mark.slow
def test_finished_runs_are_kept_and_broken_ones_go_on(copied):
    broken = OUT / "runs/arm=scratch_samples=40_seed=2"
    (broken / "DONE").unlink()
    (broken / "STOPPED").write_text("the file STOP\n")
    before = (broken / "metrics.jsonl").read_bytes()
    kept = OUT / "runs/arm=scratch_samples=40_seed=1/metrics.jsonl"
    stamp = kept.stat().st_mtime_ns
    collected = run_program("compare", "collect", "comparison.yaml")
    assert f"not in it: {broken.name}: broken off: the file STOP" in collected.stdout
    again = run_program("compare", "run", "comparison.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{broken.name}: goes on, it was broken off: the file STOP" in again.stdout
    assert again.stdout.startswith("8 runs, 7 of them complete")
    assert (broken / "metrics.jsonl").read_bytes() == before  # all steps had been taken
    assert not (OUT / "failed").exists()
    assert kept.stat().st_mtime_ns == stamp
    assert copied.arms.keys() == {"scratch", "pretrained"}


@pytest.mark.slow
def test_pretraining_on_the_same_data_is_pointed_out(copied):
    notes = " ".join(collect_comparison(copied).notes)
    assert "pretrained: its pretraining learned from a data set that the runs learn from, too" in notes
    assert "With 2 seeds the t test" in notes
