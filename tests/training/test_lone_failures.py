"""What befalls one rank alone: it says so, and the whole job ends."""

import subprocess
import sys
from pathlib import Path

import pytest
from ranks import mpirun, run_command

pytestmark = pytest.mark.mpi
TRAIN = (sys.executable, "-m", "matsci_hpc", "train")


def run_with_another_second_rank(first: Path, second: Path) -> subprocess.CompletedProcess[str]:
    """Two ranks that see different files, as where a file system is missing on one node."""
    command = [*mpirun(1, *TRAIN, first), ":", "-n", "1", *map(str, (*TRAIN, second))]
    return run_command(command, timeout_s=120)


@pytest.fixture
def config_of(config, crystals, tmp_path):
    """The config with another data set."""

    def write(data: Path) -> Path:
        text = config.read_text().replace(str(crystals), str(data)).replace("unused", str(tmp_path / "run"))
        path = tmp_path / f"{data.name}.yaml"
        path.write_text(text)
        return path

    return write


def test_a_rank_that_does_not_find_the_data_says_so(config_of, crystals, tmp_path):
    result = run_with_another_second_rank(config_of(crystals), config_of(tmp_path / "absent"))
    assert result.returncode != 0
    assert "matsci-hpc: error: rank 1 on " in result.stderr
    assert f"{tmp_path / 'absent'}" in result.stderr


def test_a_rank_that_cannot_read_a_shard_says_so(config_of, crystals, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in crystals.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes()[: 100 if path.name.startswith("shard") else None])
    result = run_with_another_second_rank(config_of(crystals), config_of(damaged))
    assert result.returncode == 3
    assert "matsci-hpc: error: rank 1 on " in result.stderr
    assert "100 bytes, " in result.stderr
