from pathlib import Path

import pytest

from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.sites.model import Site


@pytest.fixture(autouse=True)
def own_journal(tmp_path, monkeypatch):
    """No test writes to the journal of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def make_job():
    def make(**changes):
        size = {name: changes.pop(name) for name in Component.__dataclass_fields__ if name in changes}
        component = Component(**{"nodes": 2, "ranks_per_node": 4} | size)
        fields = {
            "name": "demo",
            "verb": "train",
            "config": Path("/home/ada/runs/demo.yaml"),
            "work_dir": Path("/home/ada"),
            "output": Path("/scratch/ada/demo"),
            "components": (component,),
            "python": Path("/opt/venv/bin/python"),
        }
        return Job(**fields | changes)

    return make


@pytest.fixture
def make_site():
    def make(**changes):
        return Site.model_validate({"scheduler": "slurm"} | changes)

    return make
