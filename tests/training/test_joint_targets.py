"""Five real data sets and targets of every kind at once, on real ranks."""

import numpy as np
import pytest
import torch
from ranks import run_ranks
from test_exactness import assert_same_run

from matsci_hpc.config.data import Data
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import Target, TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.labels import target_values
from matsci_hpc.loading.loader import Cursor, Division, step_work
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.spec import plan_spec
from matsci_hpc.models.registry import build_model
from matsci_hpc.training.learned import read_learned
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import build_tasks, local_losses

TARGETS = (
    "targets={heat_of_formation: {}, carbon_energy: {loss: mae}, formation_energy: {loss: mse, references: true}, "
    "band_gap: {}, metal: {of: band_gap, below: 1.0e-3}, insulator: {of: band_gap, above: 2.0}, "
    "energy: {extensive: true, references: true}, point_group: {}, subgroups: {}}"
)


def options(materials) -> tuple[str, ...]:
    return (f"data.train=[{', '.join(map(str, materials.values()))}]", TARGETS, "batch.graphs=13", "steps=12")


@pytest.mark.mpi
def test_everything_at_once_is_the_same_on_one_two_and_three_ranks(materials, train, lines):
    one = train("one", 1, *options(materials))
    for ranks, backend in ((2, "gloo"), (3, "mpi")):
        many = train(f"on{ranks}", ranks, *options(materials), f"parallel.backend={backend}")
        assert_same_run(lines, one, many, steps=12)
    last = lines(one, "evaluations")[-1]
    assert last["confusion"].keys() == {"metal", "insulator", "point_group"}
    for target, confusion in last["confusion"].items():
        assert sum(map(sum, confusion["counts"])) == last["metrics"][target]["samples"]
    found = last["metrics"]
    assert {"mae", "rmse", "r2"} <= found["heat_of_formation"].keys()
    assert {"auroc", "f1", "balanced_accuracy"} <= found["metal"].keys()
    assert found["metal"]["samples"] == found["band_gap"]["samples"] == found["insulator"]["samples"] > 0
    assert found["metal"]["chance"] != found["insulator"]["chance"]
    assert {"f1_macro", "balanced_accuracy"} <= found["point_group"].keys()
    assert {"f1", "f1_macro", "exact"} <= found["subgroups"].keys()


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_losses_of_a_mixture_are_means_over_the_samples_that_carry_them(materials, config, ranks):
    """The shares of all ranks, added up, against each sample by itself."""
    loaded = load_config(TrainConfig, config, [*options(materials)])
    data = Collection(list(materials.values()))
    tasks, precision = build_tasks(loaded, data), Precision("float64")
    torch.manual_seed(3)
    scaling = {task.name: task.scaling for task in tasks}
    model = build_model(loaded.model, {task.name: task.spec for task in tasks}, data.cutoff, scaling).double()
    epoch = Plan(data, plan_spec(loaded, data)).epoch(0)
    absent = 0
    for step in range(4):
        cursor = Cursor(step, 0, step)
        works = [step_work(data, epoch, cursor, Division(rank, ranks), CostModel()) for rank in range(ranks)]
        summed = dict.fromkeys((task.name for task in tasks), 0.0)
        for work in works:
            for batch in work.batches:
                for name, loss in local_losses(
                    tasks, model, precision.cast(batch), work.target_counts, precision
                ).items():
                    summed[name] += loss.item()
        by_sample: dict[str, list[float]] = {task.name: [] for task in tasks}
        for sample in epoch.batch(step).tolist():
            alone = precision.cast(collate(data, np.array([sample])))
            for task in tasks:
                if alone.present[task.column]:
                    by_sample[task.name].append(task.losses(model, model(alone)[task.name], alone).item())
        absent += sum(not values for values in by_sample.values())
        expected = {name: np.mean(values) if values else 0.0 for name, values in by_sample.items()}
        assert summed == pytest.approx(expected, rel=1e-9)
    assert absent  # some steps lack a target altogether


@pytest.mark.mpi
def test_an_evaluation_is_a_table(materials, config, tmp_path, lines):
    run = tmp_path / "run"
    result = run_ranks(2, "train", config, f"run_dir={run}", *options(materials))
    assert result.returncode == 0, result.stderr
    found = lines(run, "evaluations")[-1]
    said = result.stdout.splitlines()
    last = max(number for number, line in enumerate(said) if line.startswith("held out at step 12:"))
    printed = [line.split() for line in said[last + 1 : last + 4 + len(found["metrics"])]]
    assert [row[:3] for row in printed if row[0] == "target"] == [["target", "samples", "loss"]] * 3  # a table a kind
    rows = {row[0]: row for row in printed if row[0] != "target"}
    assert rows.keys() == found["metrics"].keys()
    for name, metrics in found["metrics"].items():
        assert rows[name][1:3] == [f"{metrics['samples']:,}", f"{metrics['loss']:.4g}"]
        for key in {"mae", "rmse", "mae_per_atom", "composition_mae", "auroc", "f1", "f1_macro"} & metrics.keys():
            assert (f"{metrics[key]:.4g}" if metrics[key] is not None else "-") in rows[name]


@pytest.mark.mpi
def test_chance_of_a_derived_target_is_of_the_training_samples(crystals, train, lines):
    """The threshold lies between the medians, so that most training samples are on one side and most others not."""
    subset = {"samples": 25, "seed": 1}
    collection = open_collection(Data(train=[crystals], subset=subset))
    gaps = [target_values(collection, "gap", collection.in_split(split)) for split in ("train", "val")]
    learned, judged = (each[np.isfinite(each)] for each in gaps)
    threshold = float(np.median(learned) + np.median(judged)) / 2
    most = bool(np.mean(learned < threshold) > 0.5)
    expected = np.mean((judged < threshold) == most)
    assert expected < 0.5
    target = f"targets={{low: {{of: gap, below: {threshold}}}}}"
    run = train("run", 2, target, f"data.subset={{samples: {subset['samples']}, seed: {subset['seed']}}}", "steps=1")
    assert lines(run, "evaluations")[-1]["metrics"]["low"]["chance"] == pytest.approx(expected)
    (task,) = read_learned(run / "targets.json").tasks
    assert (task.training_yes, task.statistics.count) == (np.sum(learned < threshold), len(learned))
    assert task.measure.commonest == most


@pytest.mark.parametrize("threshold", [0.0, -0.0, 1.5e-45, 1e-6, float(np.finfo(np.float32).max)])
def test_thresholds_that_float32_has_are_taken(threshold):
    section = Target(of="gap", below=threshold)
    assert section.below == threshold
    assert (np.float32(section.below) == 0) == (threshold == 0)


@pytest.mark.mpi
def test_training_samples_of_one_class_are_told_of_once(crystals, config, tmp_path):
    collection = Collection([crystals])
    gaps = target_values(collection, "gap", collection.in_split("train"))
    gaps = np.sort(gaps[np.isfinite(gaps)])
    words = [f"run_dir={tmp_path / 'run'}", "steps=1"]
    none, most, every = float(gaps[0]), float(gaps[-1]), float(gaps[-1]) + 1  # the largest gap is not below itself
    for name, threshold in {"none": none, "most": most, "every": every}.items():
        words.append(f"targets.{name}={{of: gap, below: {threshold!r}}}")
    done = run_ranks(2, "train", config, *words)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "warning: targets." in line]
    for line, (name, threshold, label) in zip(said, [("every", every, "yes"), ("none", none, "no")], strict=True):
        assert f"targets.{name}: yes where gap is below {threshold:g}, and all {len(gaps)} training" in line
        assert f"samples are {label}: there is nothing to tell apart" in line


def test_what_cannot_be_derived_is_refused(materials, config):
    data = Collection([materials["3dsc"]])
    for targets, said in {
        "{metal: {of: gap, below: 1}}": "'gap' is no number of a structure here; these are: band_gap, formation_energy",
        "{band_gap: {of: band_gap, below: 1}}": "the data sets have a target of this name",
        "{metal: {of: band_gap}}": "either below or above",
        "{metal: {of: band_gap, below: 1, above: 2}}": "either below or above",
        "{band_gap: {below: 1}}": "give of",
        "{metal: {of: band_gap, below: 1.0e-50}}": r"targets.metal.below: .*1e-50 is 0 in the float32",
        "{metal: {of: band_gap, above: -1.0e-46}}": r"targets.metal.above: .*-1e-46 is 0 in the float32",
        "{metal: {of: band_gap, above: 1.0e40}}": r"targets.metal.above: .*1e\+40 is beyond the float32",
        "{metal: {of: band_gap, below: -3.41e38}}": r"-3.41e\+38 is beyond the float32",
        "{metal: {of: band_gap, below: 1, references: true}}": "it is a binary target",
    }.items():
        with pytest.raises(UserInputError, match=said):
            build_tasks(load_config(TrainConfig, config, [f"targets={targets}"]), data)
