import json
from pathlib import Path

import pytest
from crystal_data import prepare_crystals

CONFIG = """\
run_dir: unused
seed: 7
data: {{train: [{data}]}}
steps: 12
batch: {{graphs: 7}}
model: {{layers: 2, width: 8, message_width: 12, position_width: 8, embedding_width: 10, readout: mean}}
optimizer: {{lr: 3.0e-3}}
evaluate: {{every_steps: 6}}
checkpoint: {{every_steps: 6}}
precision: float64
log_every: 1
"""


@pytest.fixture(scope="session")
def crystals(tmp_path_factory) -> Path:
    """60 crystals in four shards; tests only read them."""
    return prepare_crystals(tmp_path_factory.mktemp("staging"))


@pytest.fixture
def config(tmp_path):
    """Writes a config that trains on a data set."""

    def write(data: Path) -> Path:
        path = tmp_path / "train.yaml"
        path.write_text(CONFIG.format(data=data))
        return path

    return write


@pytest.fixture
def losses():
    """Every loss of a run, training and held out."""

    def read(run: Path) -> list[float]:
        names = ("metrics.jsonl", "evaluations.jsonl")
        return [json.loads(line)["loss"] for name in names for line in (run / name).read_text().splitlines()]

    return read
