"""The whole road on real data: pretraining, fine-tuning on two data sets at once, and what is done with the model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ranks import run_ranks
from real_mixture import few_rows, prepare_one

from matsci_hpc import load_model
from matsci_hpc.embeddings.files import read_embeddings

MODEL = "model: {layers: 2, width: 12, message_width: 16, position_width: 8, embedding_width: 12, readout: mean}"
PRETRAIN = """\
run_dir: {folder}/pretrain
seed: 7
steps: 8
batch: {{graphs: 16}}
data:
  train:
  - source: {{kind: symmetry, seed: 5, max_atoms: 12, groups: [C2, C3, C6, Ci], samples: {{train: endless, val: 40}}}}
    neighbors: {{cutoff: 2.0}}
evaluate: {{every_steps: 8}}
{model}
"""
FINE_TUNE = """\
run_dir: {folder}/fine
seed: 3
steps: 12
batch: {{graphs: 12}}
data: {{train: [{perov_5}, {carbon_24}]}}
init_from: {folder}/pretrain
fine_tune: {{neighbors: accept, freeze: encoder, freeze_steps: 3, encoder_lr: 0.5, layer_decay: 0.7}}
targets: {{heat: {{references: true}}, energy: {{references: true}}}}
weighting: {{rule: uncertainty, rate: 0.05}}
optimizer: {{lr: 3.0e-3, clip_ratio: 0.05}}
evaluate: {{every_steps: 6, final_split: test}}
checkpoint: {{every_steps: 6}}
log_every: 1
job: {{ranks: 1}}
{model}
"""
COMPARISON = """\
base: {folder}/fine.yaml
out: {folder}/comparison
arms:
  scratch: {{overrides: {{fine_tune.freeze: none, fine_tune.freeze_steps: null, fine_tune.encoder_lr: 1.0}}}}
  pretrained: {{init_from: {folder}/pretrain}}
seeds: [1]
train_samples: [40]
steps: 4
metric: {{target: heat, name: mae}}
baselines: {folder}/baseline/compare.csv
"""
SPLITS = "{train: 0.6, val: 0.2, test: 0.2}"


def run(ranks: int, *words: object) -> str:
    done = run_ranks(ranks, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """Two real data sets, an encoder that has learned symmetry, and one that went on from it."""
    folder = tmp_path_factory.mktemp("road")
    perov_5 = few_rows(folder, "perov_5/val.csv", 100, "heat: {column: heat_all, unit: eV/atom}")
    carbon_24 = few_rows(folder, "carbon_24/val.csv", 50, "energy: {column: energy_per_atom, unit: eV/atom}")
    found = {
        "folder": folder,
        "perov_5": prepare_one(folder / "perov_5", perov_5, SPLITS),
        "carbon_24": prepare_one(folder / "carbon_24", carbon_24, SPLITS),
        "fine": folder / "fine",
    }
    for name, text in (("pretrain", PRETRAIN), ("fine", FINE_TUNE), ("comparison", COMPARISON)):
        (folder / f"{name}.yaml").write_text(text.format(model=MODEL, **found))
    run(1, "train", folder / "pretrain.yaml")
    said = run(2, "train", folder / "fine.yaml")
    assert "encoder: frozen for the first 3 steps" in said
    assert "lengths are in radii of a symmetry cloud there and in angstrom here" in said
    assert "heat: energies of" in said
    return found


@pytest.mark.slow
@pytest.mark.mpi
def test_what_was_trained_on_two_data_sets_can_be_used(places, tmp_path):
    fine, data = places["fine"], [("--data", places[name]) for name in ("perov_5", "carbon_24")]
    weights = [line["weights"] for line in lines(fine / "metrics.jsonl")]
    assert weights[0] != weights[-1]
    final = lines(fine / "evaluations.jsonl")[-1]
    assert final["split"] == "test"

    run(2, "evaluate", fine, *sum(data, ()), "--split", "test", "--out", tmp_path / "test.json")
    judged = json.loads((tmp_path / "test.json").read_text())
    assert judged["step"] == final["weights_step"]
    for target, metrics in final["metrics"].items():
        for name in ("samples", "mae", "rmse", "r2", "composition_mae"):
            assert judged["metrics"][target][name] == pytest.approx(metrics[name], rel=1e-4), (target, name)

    run(1, "export", fine, "--out", tmp_path / "model", "--evaluation", tmp_path / "test.json")
    structures = some_structures(places["folder"] / "perov_5-val.csv")
    exported, trained = load_model(tmp_path / "model"), load_model(fine)
    assert exported.about.elements == trained.about.elements
    assert exported.predict(structures) == trained.predict(structures)
    assert "| heat" in (tmp_path / "model/README.md").read_text()

    for name, more in (("before", ("--untrained", 7)), ("after", ())):
        run(2, "embed", fine, *sum(data, ()), "--split", "all", "--out", tmp_path / name, *more)
    found = read_embeddings(tmp_path / "after")
    rows = {str(name): row for name, row in zip(found.ids, found.embedding, strict=True)}
    own = exported.embed(structures)
    for structure, embedding in zip(structures, own, strict=True):
        np.testing.assert_allclose(rows[structure.properties["id"]], embedding, rtol=1e-3, atol=1e-4)
    run(1, "map", tmp_path / "before", tmp_path / "after", "--method", "pca", "--out", tmp_path / "map")
    assert "perov_5" in (tmp_path / "map/map.html").read_text()
    assert (tmp_path / "map/separation.csv").stat().st_size > 0


@pytest.mark.slow
def test_its_arms_are_compared_beside_a_baseline(places):
    folder = places["folder"]
    words = ("--target", "heat", "--split", "test", "--sizes", 40, "--seeds", 1, "--trees", 20)
    run(1, "baseline", places["perov_5"], *words, "--out", folder / "baseline")
    said = run(1, "compare", "run", folder / "comparison.yaml")
    assert "pretrained" in said
    assert "random forest of compositions" in said
    with (folder / "comparison/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        done = folder / "comparison/runs" / row["run"]
        assert float(row["value"]) == lines(done / "evaluations.jsonl")[-1]["metrics"]["heat"]["mae"]
        begun = json.loads((done / "provenance.json").read_text())
        assert ("init_from" in begun) == (row["arm"] == "pretrained")


def some_structures(table: Path) -> list:
    from pymatgen.core import Structure

    with table.open(newline="") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(5), strict=False)]
    structures = [Structure.from_str(row["cif"], fmt="cif") for row in rows]
    for structure, row in zip(structures, rows, strict=True):
        structure.properties["id"] = row["material_id"]
    return structures
