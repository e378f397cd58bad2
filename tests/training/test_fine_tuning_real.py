"""From symmetry clouds to real crystals: perovskites, carbon and superconductors."""

import csv
import json
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from shared_data import shared_data

pytestmark = [pytest.mark.mpi, pytest.mark.slow]
MODEL = "model: {layers: 2, width: 16, message_width: 24, position_width: 8, embedding_width: 16, readout: mean}"
CSV = """\
source: {{kind: csv, path: {table}, structure_column: cif, id_column: material_id, targets: {{{target}}}}}
out: {out}
shard_size: 64
neighbors: {{cutoff: 6.0}}
splits: {{train: 0.8, val: 0.2}}
"""
CIF = """\
source: {{kind: cif, path: {archive}, properties: {labels}, id_column: material_id, targets: {{{target}}}}}
out: {out}
shard_size: 64
neighbors: {{cutoff: 6.0}}
splits: {{train: 0.8, val: 0.2}}
"""


def run(*words: object) -> str:
    done = run_ranks(1, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """Thirty steps of pretraining on symmetry clouds with edges between all points."""
    folder = tmp_path_factory.mktemp("symmetry")
    (folder / "train.yaml").write_text(
        f"run_dir: {folder}/run\nseed: 7\nsteps: 30\nbatch: {{graphs: 16}}\nlog_every: 10\n{MODEL}\n"
        "data:\n  train:\n  - source: {kind: symmetry, seed: 5, samples: {train: endless, val: 50}}\n"
        "    neighbors: {cutoff: 2.0}\nevaluate: {every_steps: 30}\n"
    )
    run("train", folder / "train.yaml")
    return folder / "run"


def few_rows(table: Path, out: Path, count: int) -> Path:
    csv.field_size_limit(sys.maxsize)
    with table.open(newline="") as file, out.open("w", newline="") as few:
        rows = csv.reader(file)
        csv.writer(few).writerows(row for row, _ in zip(rows, range(count + 1), strict=False))
    return out


def few_files(archive: Path, out: Path, count: int) -> Path:
    with tarfile.open(archive) as all_of_it, tarfile.open(out, "w") as few:
        for member in all_of_it:
            if member.isfile():
                few.addfile(member, all_of_it.extractfile(member))
                count -= 1
            if not count:
                return out
    raise AssertionError("too few files")


def prepared(name: str, folder: Path) -> Path:
    out = folder / "data"
    if name == "3dsc":
        archive = few_files(shared_data("3dsc_cifs.tar.gz"), folder / "few.tar", 150)
        labels, target = shared_data("3dsc_labels.csv"), "formation_energy: {column: formation_energy_per_atom_eV}"
        text = CIF.format(archive=archive, labels=labels, target=target, out=out)
    else:
        column = "heat: {column: heat_all}" if name == "perov_5" else "energy: {column: energy_per_atom}"
        table = few_rows(shared_data(f"{name}/val.csv"), folder / "few.csv", 120)
        text = CSV.format(table=table, target=column, out=out)
    (folder / "prep.yaml").write_text(text)
    run("prep", folder / "prep.yaml")
    return out


@pytest.mark.parametrize("name", ["perov_5", "carbon_24", "3dsc"])
def test_an_encoder_of_clouds_goes_on_with_crystals(pretrained, tmp_path, name):
    data = prepared(name, tmp_path)
    config = tmp_path / "train.yaml"
    config.write_text(
        f"run_dir: {tmp_path}/run\nseed: 3\nsteps: 12\nbatch: {{graphs: 16}}\nlog_every: 1\n{MODEL}\n"
        f"data: {{train: [{data}]}}\ninit_from: {pretrained}\nevaluate: {{every_steps: 6}}\n"
        "checkpoint: {every_steps: 4, keep: 9}\noptimizer: {lr: 3.0e-3, clip_norm: 1.0}\n"
        "fine_tune: {freeze: encoder, freeze_steps: 4, encoder_lr: 0.3, layer_decay: 0.8}\n"
    )
    refused = run_ranks(1, "train", config)
    assert refused.returncode == 2
    assert "the cutoff of the edges is 2 there and 6 here" in refused.stderr
    said = run("train", config, "fine_tune.neighbors=accept")
    assert "differs: lengths are in radii of a symmetry cloud there and in angstrom here" in said
    assert "encoder: frozen for the first 4 steps" in said
    theirs, frozen, last = (
        load_file(folder / f"checkpoints/step-{step:06d}/model.safetensors")
        for folder, step in ((pretrained, 30), (tmp_path / "run", 4), (tmp_path / "run", 12))
    )
    encoder = [key for key in last if key.startswith("encoder.")]
    assert all(torch.equal(frozen[key], theirs[key]) for key in encoder)
    assert not any(torch.equal(last[key], theirs[key]) for key in encoder if "layers.1" in key and "weight" in key)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
