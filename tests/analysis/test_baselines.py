import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from crystal_data import prepare_crystals
from pymatgen.core import Composition, Element
from ranks import run_ranks
from shared_data import shared_data

from matsci_hpc.analysis import baselines as module
from matsci_hpc.analysis.baseline_targets import chosen_targets
from matsci_hpc.analysis.baselines import FOREST, MEAN, BaselineSettings, baselines, draw, table_of, write_baselines
from matsci_hpc.analysis.composition_features import PROPERTIES, STATISTICS, features
from matsci_hpc.cli import cli
from matsci_hpc.comparison.baselines import read_baselines
from matsci_hpc.config.comparison import Metric
from matsci_hpc.config.data import Data
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import Target, TrainConfig
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.labels import ELEMENTS, compositions, sample_ids, target_values
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import build_tasks


@pytest.fixture(scope="module")
def crystals(tmp_path_factory) -> Path:
    return prepare_crystals(tmp_path_factory.mktemp("crystals"), cutoff=2.0)


@pytest.fixture(scope="module")
def perovskites(tmp_path_factory) -> Path:
    """3,787 perovskites, half of them to learn from."""
    folder = tmp_path_factory.mktemp("perovskites")
    config = folder / "prep.yaml"
    config.write_text(f"""\
source:
  kind: csv
  path: {shared_data("perov_5/val.csv")}
  structure_column: cif
  id_column: material_id
  targets:
    heat_of_formation: {{column: heat_all, unit: eV/atom}}
out: {folder}/data
neighbors: {{cutoff: 2.0, store: false}}
splits: {{train: 0.5, val: 0.5}}
""")
    prepare(load_config(PrepConfig, config), World())
    return folder / "data"


def composition_of(formula):
    row = np.zeros((1, ELEMENTS), dtype=np.int32)
    for element, count in Composition(formula).get_el_amt_dict().items():
        row[0, Element(element).Z] = int(count)
    return row


def test_features_are_those_of_their_definitions():
    found = features(composition_of("Ba2TiO4"))[0]
    assert found[[56, 22, 8]] == pytest.approx([2 / 7, 1 / 7, 4 / 7])
    assert found[:ELEMENTS].sum() == pytest.approx(1.0)
    assert found[ELEMENTS] == 3
    assert len(found) == ELEMENTS + 1 + len(PROPERTIES) * len(STATISTICS)
    start = ELEMENTS + 1 + list(PROPERTIES).index("electronegativity (Pauling)") * len(STATISTICS)
    x = {name: Element(name).X for name in ("Ba", "Ti", "O")}
    mean = Composition("Ba2TiO4").average_electroneg
    deviation = (2 * abs(x["Ba"] - mean) + abs(x["Ti"] - mean) + 4 * abs(x["O"] - mean)) / 7
    expected = [mean, deviation, x["Ba"], x["O"], x["O"] - x["Ba"]]
    assert found[start : start + 5] == pytest.approx(expected, rel=1e-6)
    assert features(composition_of("Ba4Ti2O8"))[0] == pytest.approx(found)


def test_every_element_has_finite_features():
    every = np.eye(ELEMENTS, dtype=np.int32)[1:]
    assert np.isfinite(features(every)).all()


def test_labels_are_read_as_batches_hold_them(crystals):
    collection = Collection([crystals])
    samples = np.array([0, 3, 4, 17, 40, 59])
    batch = collate(collection, samples)
    counts = compositions(collection, samples)
    for number, row in enumerate(counts):
        atoms = batch.atomic_number[batch.atom_pointer[number] : batch.atom_pointer[number + 1]].numpy()
        assert row.tolist() == np.bincount(atoms, minlength=ELEMENTS).tolist()
        assert sample_ids(collection, samples)[number].decode() in collection.sample_name(int(samples[number]))
    for name in ("gap", "metal"):
        values, there = target_values(collection, name, samples), batch.present[name].numpy()
        assert np.isfinite(values).tolist() == there.tolist()
        assert values[there].tolist() == batch.targets[name].numpy()[there].tolist()
    family = target_values(collection, "family", samples)
    assert (family >= 0).tolist() == batch.present["family"].tolist()


def test_a_forest_of_compositions_beats_the_mean_on_real_perovskites(perovskites):
    settings = BaselineSettings(perovskites, split="val", sizes=(100, None), seeds=(0, 1), trees=30)
    scores = list(baselines(settings))
    assert len(scores) == 2 * 2 * 2
    collection = Collection([perovskites])
    learn, judge = collection.in_split("train"), collection.in_split("val")
    values = [target_values(collection, "heat_of_formation", some).astype(float) for some in (learn, judge)]
    mean = [each for each in scores if each.model == MEAN]
    whole = next(each for each in mean if each.size == len(learn))
    assert whole.metrics["mae"] == pytest.approx(np.abs(values[1] - values[0].mean()).mean())
    assert whole.metrics["rmse"] == pytest.approx(np.sqrt(((values[1] - values[0].mean()) ** 2).mean()))
    few = next(each for each in mean if each.size == 100 and each.seed == 1)
    part = values[0][draw(len(learn), 100, 1)]
    assert few.metrics["mae"] == pytest.approx(np.abs(values[1] - part.mean()).mean())
    forest = {(each.size, each.seed): each for each in scores if each.model == FOREST}
    # A composition does not tell which of two metals is where, which perovskites are known to care about.
    assert forest[100, 0].metrics["mae"] < 0.95 * mean[0].metrics["mae"]
    assert forest[len(learn), 0].metrics["mae"] < 0.97 * forest[100, 0].metrics["mae"]
    assert forest[len(learn), 0].metrics["r2"] > 0.1 > abs(whole.metrics["r2"])
    assert {each.samples for each in scores} == {len(judge)}
    assert all(0 <= each.formulas_seen <= 1 for each in scores)


def test_every_kind_of_target_is_judged(crystals):
    scores = list(baselines(BaselineSettings(crystals, split="val", seeds=(0,), trees=10)))
    kinds = {(each.target, each.model): each for each in scores}
    assert {name for name, _ in kinds} == {"gap", "metal", "family"}
    collection = Collection([crystals])
    learn, judge = collection.in_split("train"), collection.in_split("val")
    flags = [target_values(collection, "metal", some).astype(float) for some in (learn, judge)]
    commonest = float(np.nanmean(flags[0]) > 0.5)
    truth = flags[1][np.isfinite(flags[1])]
    assert kinds["metal", MEAN].metrics == {"accuracy": (truth == commonest).mean(), "auroc": 0.5}
    assert kinds["metal", MEAN].samples == len(truth) < len(judge)
    assert kinds["metal", FOREST].learned == np.isfinite(flags[0]).sum()
    family = [target_values(collection, "family", some) for some in (learn, judge)]
    named = np.bincount(family[0][family[0] >= 0]).argmax()
    assert kinds["family", MEAN].metrics["accuracy"] == (family[1][family[1] >= 0] == named).mean()
    assert kinds["gap", FOREST].unit == "eV"
    table = table_of(scores)
    assert "commonest class" in table
    assert "auroc" in table


def test_a_smaller_part_is_part_of_a_larger_one_and_of_the_seed():
    assert set(draw(1000, 50, 3)) < set(draw(1000, 200, 3))
    assert set(draw(1000, 50, 3)) != set(draw(1000, 50, 4))
    assert draw(1000, 1000, 3).tolist() == list(range(1000))
    with pytest.raises(UserInputError, match="--sizes 1,001: the training split has 1,000 samples"):
        draw(1000, 1001, 3)


def test_the_command_writes_what_it_prints_the_same_each_time(crystals, tmp_path):
    words = ["baseline", crystals, "--split", "val", "--target", "gap", "--sizes", "10,all", "--seeds", 2, "--trees", 8]
    done = run_ranks(1, *words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/baselines.json").read_text())
    with (tmp_path / "out/baselines.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(record["scores"]) == 8
    assert [float(row["mae"]) for row in rows] == [each["metrics"]["mae"] for each in record["scores"]]
    forest = [each["metrics"]["mae"] for each in record["scores"] if each["model"] == FOREST and each["size"] == 10]
    (line,) = [line for line in done.stdout.splitlines() if " 10  mae " in line and "forest" in line]
    assert f"{np.mean(forest):.4g}" in line
    settings = BaselineSettings(crystals, ("gap",), split="val", sizes=(10, None), seeds=(0, 1), trees=8)
    write_baselines(tmp_path / "again", settings, list(baselines(settings)))
    read = {(each.metric, each.train_samples): each for each in read_baselines(tmp_path / "out/compare.csv")}
    assert read["mae", 10].value == pytest.approx(np.mean(forest))
    fingerprint = json.loads((crystals / "dataset.json").read_text())["fingerprint"]
    assert {(each.split, each.data) for each in read.values()} == {("val", fingerprint)}
    assert {size for _, size in read} == {each["size"] for each in record["scores"]}
    for name in ("baselines.csv", "baselines.json", "compare.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("side", ["below", "above"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_derived_target_has_the_labels_that_training_has(crystals, side, precision):
    """The threshold is next to the gap of a sample, which float32 cannot tell: on neither side in any precision."""
    collection = Collection([crystals])
    samples = np.arange(60)
    gaps = target_values(collection, "gap", samples)
    gap = np.sort(gaps[np.isfinite(gaps)])[len(gaps) // 3]
    threshold = float(np.nextafter(np.float64(gap), np.inf if side == "below" else -np.inf))
    section = {"of": "gap", side: threshold}
    values = {
        "run_dir": "run", "seed": 1, "data": {"train": [crystals]}, "steps": 1, "batch": {"graphs": 4},
        "targets": {"wide": section},
    }  # fmt: skip
    (task,) = build_tasks(TrainConfig.model_validate(values), collection)
    batch = Precision(precision).cast(collate(collection, samples))
    learned = task.derivation.of(batch.targets["gap"])[batch.present["gap"]]
    (target,) = chosen_targets(collection, ["wide"], {"wide": Target(**section)})
    found = target.values(collection, samples)
    assert np.isfinite(found).tolist() == batch.present["gap"].tolist()
    assert found[np.isfinite(found)].tolist() == learned.tolist()
    assert 0 < learned.sum() < len(learned)
    assert set(found[gaps == gap]) == {0.0}
    assert learned.dtype == torch.float64 if precision == "float64" else torch.float32


def test_the_command_judges_what_is_derived(crystals, tmp_path):
    out = tmp_path / "out"
    words = ("--split", "val", "--seeds", 2, "--trees", 8, "--out", out)
    done = run_ranks(1, "baseline", crystals, "--target", "wide", "--derive", "wide=gap>2", *words)
    assert done.returncode == 0, done.stderr
    assert "commonest class" in done.stdout
    record = json.loads((out / "baselines.json").read_text())
    assert record["derived"] == {"wide": {"of": "gap", "above": 2.0}}
    assert {(each["target"], each["kind"], each["unit"]) for each in record["scores"]} == {("wide", "binary", None)}
    collection = Collection([crystals])
    gaps = [target_values(collection, "gap", collection.in_split(split)) for split in ("train", "val")]
    wide = [gap[np.isfinite(gap)] > 2 for gap in gaps]
    mean = next(each for each in record["scores"] if each["model"] == MEAN)
    assert mean["metrics"] == {"accuracy": (wide[1] == (wide[0].mean() > 0.5)).mean(), "auroc": 0.5}
    assert (mean["learned"], mean["samples"]) == (len(wide[0]), len(wide[1]))
    forest = [each["metrics"] for each in record["scores"] if each["model"] == FOREST]
    read = {each.metric: each for each in read_baselines(out / "compare.csv")}
    for name in ("accuracy", "auroc"):
        assert read[name].target == "wide"
        assert read[name].value == pytest.approx(np.mean([each[name] for each in forest]))
        assert read[name].is_of(Metric(target="wide", name=name))


def test_derived_labels_of_one_class_are_told_of_once(crystals, capsys):
    collection = Collection([crystals])
    gaps = target_values(collection, "gap", collection.in_split("train"))
    gaps = gaps[np.isfinite(gaps)]
    derived = {
        "every": Target(of="gap", above=-1.0),
        "none": Target(of="gap", above=float(gaps.max())),
        "most": Target(of="gap", above=float(gaps.min())),
    }
    settings = BaselineSettings(crystals, tuple(derived), split="val", trees=4, seeds=(0, 1), derived=derived)
    scores = [each for each in baselines(settings) if each.model == FOREST]
    assert [each.target for each in scores] == ["every", "every", "none", "none", "most", "most"]
    every, none = capsys.readouterr().err.splitlines()
    assert f"--derive every: yes where gap is above -1, and all {len(gaps)} training samples are yes" in every
    assert f"--derive none: yes where gap is above {gaps.max():g}, and all {len(gaps)} training samples are no" in none


def test_what_is_derived_is_judged_beside_what_the_data_have(crystals):
    collection = Collection([crystals])
    wide = {"wide": Target(of="gap", above=2)}
    for names, expected in {(): ["gap", "metal", "family", "wide"], ("gap",): ["gap", "wide"]}.items():
        assert [each.name for each in chosen_targets(collection, names, wide)] == expected


@pytest.mark.parametrize(
    ("derive", "said"),
    {
        ("wide=gap",): "'wide=gap' is not NAME=OTHER<VALUE or NAME=OTHER>VALUE",
        ("wide=gap<=2",): "is not NAME=OTHER<VALUE",
        ("wi.de=gap<2",): "'wi.de=gap<2': a target cannot be called 'wi.de': a name has no dots, spaces, =, < or >",
        ("wi de = gap > 2",): "a target cannot be called 'wi de': a name has no dots",
        ("gap<2",): "is not NAME=OTHER<VALUE",
        ("wide=gap<two",): "'two' is no number; write one in the unit of gap",
        ("wide=gap<nan",): "'nan' is no number",
        ("wide=gap<1e-50",): "'wide=gap<1e-50': 1e-50 is 0 in the float32 in which data sets store values",
        ("wide=gap>1e40",): "'wide=gap>1e40': 1e+40 is beyond the float32 in which data sets store values",
        ("wide=family<2",): "--derive wide: 'family' is no number of a structure here; these are: gap",
        ("metal=gap<2",): "--derive metal: the data sets have a target of this name",
        ("wide=gap<2", "wide=gap>2"): "wide is derived twice",
    }.items(),
)
def test_what_cannot_be_derived_ends_with_a_message(crystals, tmp_path, derive, said):
    words = [word for each in derive for word in ("--derive", each)]
    result = CliRunner().invoke(
        cli, ["baseline", str(crystals), "--split", "val", "--out", str(tmp_path / "out"), *words]
    )
    error = result.exception
    exit_code = error.exit_code if isinstance(error, UserInputError) else result.exit_code
    assert exit_code == 2
    message = " ".join((result.output + str(error)).split())
    assert said in message
    # What has arrived with < or > was in quotes.
    assert ("put it in quotes" in message) == (derive == ("wide=gap",))
    assert not (tmp_path / "out").exists()


def test_mistakes_are_the_users(crystals, monkeypatch):
    def first(**options):
        return next(baselines(BaselineSettings(crystals, **options)))

    with pytest.raises(UserInputError, match="--target mass: the data set has no such target; it has: gap, metal, fam"):
        first(targets=("mass",))
    with pytest.raises(UserInputError, match="no sample in split 'test'"):
        first(split="test")
    with pytest.raises(UserInputError, match="--split train is the split that is learned from"):
        first(split="train")
    monkeypatch.setattr(module, "installed", lambda _: None)
    with pytest.raises(MachineError, match=r"baselines need scikit-learn.*pip install 'matsci-hpc\[embed\]'"):
        first()


def test_a_part_holds_the_samples_that_a_training_run_of_its_size_and_seed_draws(crystals):
    every = Collection([crystals]).in_split("train")
    part = open_collection(Data(train=[crystals], subset={"samples": 12, "seed": 3})).in_split("train")
    assert every[draw(len(every), 12, 3)].tolist() == part.tolist()
