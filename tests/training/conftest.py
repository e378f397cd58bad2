import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crystal_data import prepare_crystals
from fine_tuned import WRAPPER
from ranks import mpirun, run_command, trainer
from real_mixture import prepare_real_mixture

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare

CONFIG = """\
run_dir: {run_dir}
seed: 7
data: {{train: [{data}]}}
steps: 20
batch: {{graphs: 7}}
model: {{layers: 2, width: 8, message_width: 12, position_width: 8, embedding_width: 10, readout: mean}}
optimizer: {{lr: 3.0e-3, clip_norm: 5.0}}
schedule: {{warmup_steps: 3}}
evaluate: {{every_steps: 8}}
checkpoint: {{every_steps: 5, keep: 10}}
precision: float64
fine_tune: {{neighbors: accept}} # where clouds come before crystals
log_every: 1
"""


@pytest.fixture(scope="session")
def crystals(tmp_path_factory) -> Path:
    """60 crystals of 1 to 14 atoms with four kinds of targets, one of them often absent."""
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="session")
def clouds(tmp_path_factory) -> Path:
    """30 symmetry clouds: no sample of theirs carries a target of the crystals, or the other way round."""
    folder = tmp_path_factory.mktemp("clouds")
    config = folder / "prep.yaml"
    config.write_text(
        f"source: {{kind: symmetry, samples: 30, max_atoms: 12, groups: [C2, C3, Ci]}}\nout: {folder}/data\n"
        "shard_size: 8\nneighbors: {cutoff: 4.0}\nsplits: {train: 0.7, val: 0.3}\n"
    )
    prepare(load_config(PrepConfig, config), World())
    return folder / "data"


@pytest.fixture(scope="session")
def materials(tmp_path_factory) -> dict[str, Path]:
    """Parts of the real data sets, by name."""
    return prepare_real_mixture(tmp_path_factory.mktemp("materials"))


@pytest.fixture(scope="session")
def config(crystals, tmp_path_factory) -> Path:
    """The config that all of these runs share; each overrides run_dir."""
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(CONFIG.format(run_dir="unused", data=crystals))
    return path


@pytest.fixture(scope="session")
def train_in(config) -> Callable[..., Path]:
    """Train on real ranks: train_in(folder, ranks, overrides...) gives the folder."""
    return trainer(config)


@pytest.fixture
def train(train_in, tmp_path) -> Callable[..., Path]:
    """The same in a folder of this test, by name."""
    return lambda name, ranks, *overrides: train_in(tmp_path / name, ranks, *overrides)


@pytest.fixture(scope="session")
def whole(train_in, tmp_path_factory) -> Callable[[int], Path]:
    """The uninterrupted run of 20 steps on so many ranks, made once; not to be changed."""
    made: dict[int, Path] = {}

    def run(ranks: int) -> Path:
        if ranks not in made:
            made[ranks] = train_in(tmp_path_factory.mktemp("whole") / f"on{ranks}", ranks)
        return made[ranks]

    return run


@pytest.fixture
def copy_of_whole(whole, tmp_path) -> Callable[[int], Path]:
    """A copy of it, to be damaged."""
    return lambda ranks: Path(shutil.copytree(whole(ranks), tmp_path / f"copy{ranks}"))


@pytest.fixture
def lines() -> Callable[..., list[dict]]:
    """Records of a run: lines(folder, "metrics" or "evaluations")."""
    return lambda folder, name="metrics": [
        json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="session")
def pretrained(train_in, clouds, tmp_path_factory) -> Path:
    """A run on symmetry clouds; not to be changed."""
    options = (f"data.train=[{clouds}]", "steps=8", "evaluate.every_steps=8")
    return train_in(tmp_path_factory.mktemp("pretrained") / "run", 1, *options)


@pytest.fixture
def observed(config, tmp_path):
    """A run of which ranks leave what WRAPPER sees: its folder, and the folder of these."""
    program = tmp_path / "observed.py"
    program.write_text(WRAPPER)

    def start(name: str, ranks: int, *overrides: str) -> tuple[Path, Path]:
        run, folder = tmp_path / name, tmp_path / f"seen-{name}"
        result = run_command(
            mpirun(ranks, sys.executable, program, folder, "train", config, f"run_dir={run}", *overrides)
        )
        assert result.returncode == 0, result.stderr
        return run, folder

    return start
