import json
from pathlib import Path

import pytest
from preparation import run_program

MODEL = {
    "layers": 2,
    "width": 16,
    "message_width": 16,
    "position_width": 8,
    "embedding_width": 16,
    "radial_basis": {"count": 8},
    "readout": "mean",
}


@pytest.fixture(scope="session")
def clouds(tmp_path_factory):
    """A data set of 240 clouds, the config that made it beside it; tests only read it."""
    folder = tmp_path_factory.mktemp("clouds")
    source = {"kind": "symmetry", "samples": 240, "seed": 5}
    config = {"source": source, "out": str(folder / "data"), "shard_size": 32, "neighbors": {"cutoff": 2.0}}
    (folder / "prep.yaml").write_text(json.dumps(config))
    made = run_program("prep", folder / "prep.yaml")
    assert made.returncode == 0, made.stderr
    return folder / "data"


@pytest.fixture
def make_study(tmp_path, monkeypatch):
    """A function that writes `train.yaml`, `prep.yaml` and `study.yaml` into an empty folder, where the test runs."""
    monkeypatch.chdir(tmp_path)

    def make(data="datasets/clouds", **changes):
        train = {
            "run_dir": "runs/demo",
            "seed": 7,
            "data": {"train": [str(data)]},
            "steps": 10,
            "batch": {"graphs": 12},
            "model": MODEL,
            "schedule": {"decay": "constant"},
        }
        source = {"kind": "symmetry", "samples": 48, "seed": 5}
        prep = {"source": source, "out": "datasets/clouds", "shard_size": 8, "neighbors": {"cutoff": 2.0}}
        study = {
            "base": "train.yaml",
            "out": "studies/small",
            "scaling": "strong",
            "axes": {"ranks": [1, 2], "backend": ["gloo"]},
            "repeats": 1,
            "warmup_steps": 2,
            "steps": 4,
        }
        for name, config in (("train", train), ("prep", prep), ("study", study | changes)):
            Path(f"{name}.yaml").write_text(json.dumps(config))  # which is YAML, too
        return Path("study.yaml")

    return make
