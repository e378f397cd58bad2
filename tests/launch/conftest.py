from pathlib import Path

import pytest

from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites import Site


@pytest.fixture
def make_job():
    def make(**changes):
        fields = {
            "name": "demo",
            "verb": "train",
            "config": Path("/home/ada/runs/demo.yaml"),
            "work_dir": Path("/home/ada"),
            "run_dir": Path("/scratch/ada/demo"),
            "nodes": 2,
            "ranks_per_node": 4,
            "python": Path("/opt/venv/bin/python"),
        }
        return Job(**fields | changes)

    return make


@pytest.fixture
def make_site():
    def make(**changes):
        return Site.model_validate({"scheduler": "slurm"} | changes)

    return make
