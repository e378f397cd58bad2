from pathlib import Path

import pytest
from crystal_data import prepare_crystals
from ranks import run_ranks

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare

CONFIG = """\
run_dir: {run_dir}
seed: 7
data: {{train: [{data}]}}
steps: 6
batch: {{graphs: 7}}
model: {{layers: 2, width: 8, message_width: 12, position_width: 8, embedding_width: 10, readout: mean}}
optimizer: {{lr: 3.0e-3}}
evaluate: {{every_steps: 3}}
checkpoint: {{every_steps: 3, keep: 10}}
log_every: 1
"""


@pytest.fixture(scope="session")
def crystals(tmp_path_factory) -> Path:
    """60 crystals with a number, a flag and a class, each of them sometimes absent."""
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="session")
def clouds(tmp_path_factory) -> Path:
    """40 symmetry clouds with shorter edges than the crystals."""
    folder = tmp_path_factory.mktemp("clouds")
    config = folder / "prep.yaml"
    config.write_text(
        f"source: {{kind: symmetry, samples: 40, max_atoms: 12, groups: [C2, C3, Ci]}}\nout: {folder}/clouds\n"
        "shard_size: 8\nneighbors: {cutoff: 2.5}\nsplits: {train: 0.5, val: 0.5}\n"
    )
    prepare(load_config(PrepConfig, config), World())
    return folder / "clouds"


@pytest.fixture(scope="session")
def config(crystals, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(CONFIG.format(run_dir="unused", data=crystals))
    return path


@pytest.fixture(scope="session")
def run(config, tmp_path_factory) -> Path:
    """A run of 6 steps on the crystals; not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "gap"
    done = run_ranks(1, "train", config, f"run_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder
