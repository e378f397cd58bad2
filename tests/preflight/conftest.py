import json
import shutil
import sys
from pathlib import Path

import pytest
from crystal_data import prepare_crystals

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.preflight.measured import Trial
from matsci_hpc.preflight.subject import Subject

MODEL = {"layers": 2, "width": 8, "message_width": 12, "position_width": 8, "embedding_width": 10, "readout": "mean"}


@pytest.fixture(autouse=True)
def own_journal(tmp_path, monkeypatch):
    """No test writes to the journal of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def crystals(tmp_path_factory) -> Path:
    """60 crystals with three targets, 39 to train on; tests only read it."""
    return prepare_crystals(tmp_path_factory.mktemp("checked"))


@pytest.fixture
def copy_of(tmp_path):
    """A copy of a data set, to be damaged."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def site():
    def make(**changes):
        return Site.model_validate({"scheduler": "slurm"} | changes)

    return make


@pytest.fixture
def job(tmp_path):
    def make(**changes):
        size = {name: changes.pop(name) for name in Component.__dataclass_fields__ if name in changes}
        fields = {
            "name": "demo",
            "verb": "train",
            "config": tmp_path / "train.yaml",
            "work_dir": tmp_path,
            "output": tmp_path / "run",
            "components": (Component(**{"nodes": 1, "ranks_per_node": 2} | size),),
            "python": Path(sys.executable),
        }
        return Job(**fields | changes)

    return make


@pytest.fixture
def train_config(tmp_path, crystals):
    """A function that writes a config of a training run in this test's folder and reads it."""

    def make(**changes):
        keys = {"run_dir": str(tmp_path / "run"), "data": {"train": [str(crystals)]}, "steps": 6}
        keys |= {"batch": {"graphs": 8}, "model": MODEL, "log_every": 1} | changes
        path = tmp_path / "train.yaml"
        path.write_text(json.dumps(keys))
        return load_config(TrainConfig, path)

    return make


@pytest.fixture
def prep_config(tmp_path):
    def make(**changes):
        keys = {
            "source": {"kind": "symmetry", "samples": 300},
            "out": str(tmp_path / "out"),
            "neighbors": {"cutoff": 2},
        }
        path = tmp_path / "prep.yaml"
        path.write_text(json.dumps(keys | {"shard_size": 64} | changes))
        return load_config(PrepConfig, path)

    return make


@pytest.fixture
def subject(job, site):
    """A run to be checked, from its config."""
    made_site = site()

    def make(config, *, awaited=(), after=False, site=made_site, **changes):
        output = config.run_dir if isinstance(config, TrainConfig) else config.out
        verb = "train" if isinstance(config, TrainConfig) else "prep"
        made = job(output=output, verb=verb, config=changes.pop("path", output.parent / f"{verb}.yaml"), **changes)
        return Subject(made, config, (), output, site, frozenset(awaited), after)

    return make


@pytest.fixture
def trial():
    """What a trial found, with these figures in place of its own."""

    def make(**changes):
        figures = {
            "threads": 1,
            "step_times_s": [0.1, 0.1],
            "step_costs": [1000.0, 1000.0],
            "first_step_s": 0.2,
            "startup_s": 3.0,
            "mean_cost": 1000.0,
            "largest_cost": 2000.0,
            "efficiency": 0.9,
            "epochs": 2.0,
            "warnings": [],
            "parameter_bytes": 10_000_000,
            "program_bytes": 200_000_000,
            "fixed_bytes": 40_000_000,
            "work_bytes": 500_000_000.0,
            "evaluation_cost": 1000.0,
            "trial_cost": 1000.0,
            "trial_work_bytes": 250_000_000.0,
            "steps_bytes": 500_000_000,
            "peak_bytes": 500_000_000,
            "planning_bytes": 1_000_000,
            "evaluation_s": 1.0,
            "look_s": 0.5,
        }
        return Trial(**figures | changes)

    return make
