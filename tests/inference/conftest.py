import shutil
from pathlib import Path

import pytest
from crystal_data import prepare_crystals
from crystals import write_broken
from ranks import run_ranks

from matsci_hpc.inference.exporting import Wishes, export

CONFIG = """\
run_dir: {run_dir}
seed: 7
data: {{train: [{data}]}}
steps: 12
batch: {{graphs: 7}}
model: {{layers: 2, width: 8, message_width: 12, position_width: 8, embedding_width: 10, readout: mean, envelope: true}}
optimizer: {{lr: 3.0e-3, clip_norm: 5.0}}
evaluate: {{every_steps: 6}}
checkpoint: {{every_steps: 4, keep: 10}}
average: {{decay: 0.9}}
log_every: 1
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """60 prepared crystals with a number, a flag and a class; their CIF files lie in `cifs` beside the data set."""
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="session")
def run(data, tmp_path_factory) -> Path:
    """A run of 12 steps that evaluated twice and kept averages; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "train.yaml"
    config.write_text(CONFIG.format(run_dir=folder / "demo", data=data))
    result = run_ranks(1, "train", config)
    assert result.returncode == 0, result.stderr
    return folder / "demo"


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


@pytest.fixture
def exported(run, tmp_path) -> Path:
    """The file of its export, to be damaged."""
    file, _ = export(run, tmp_path / "export", None, Wishes())
    return file


@pytest.fixture(scope="session")
def inputs(data, tmp_path_factory) -> Path:
    """CIF files of the data set, and broken ones among them."""
    folder = tmp_path_factory.mktemp("inputs") / "cifs"
    shutil.copytree(data.parent / "cifs", folder)
    write_broken(folder / "broken")
    return folder
