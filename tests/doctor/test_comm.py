"""`matsci-hpc doctor --comm` on real ranks."""

import json
import sys

import click
import pytest
from ranks import run_command, run_ranks

from matsci_hpc.doctor.comm_table import table
from matsci_hpc.parallel.all_reduce_times import SIZES
from matsci_hpc.parallel.measurements import Measurement, read_measurements

COMM = ("doctor", "--comm", "--seconds", "0.3")


@pytest.mark.mpi
def test_two_ranks_measure_every_backend_and_keep_the_numbers(tmp_path):
    path = tmp_path / "communication.json"
    result = run_ranks(2, *COMM, "--json", MATSCI_HPC_MEASUREMENTS=str(path))
    assert result.returncode == 0, result.stderr
    told = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    assert told["file"] == str(path)
    kept, trouble = read_measurements(path)
    assert trouble is None
    assert [Measurement.model_validate(each) for each in told["measurements"]] == kept
    by_backend = {each.key.backend: each for each in kept}
    assert {"gloo", "mpi"} <= by_backend.keys()
    assert by_backend.keys() | {name.split()[0] for name in told["not_usable"]} == {"gloo", "mpi", "horovod", "ccl"}
    for each in kept:
        assert (each.key.ranks, each.key.nodes, each.key.ranks_per_node) == (2, 1, 2)
        sizes = tuple(point.bytes for point in each.points)
        assert sizes == SIZES[: len(sizes)]
        assert len(sizes) >= 4
        assert all(point.low_s <= point.time_s <= point.high_s for point in each.points)
        assert each.small_s == each.points[0].time_s
    lines = table(kept, {"ccl": "no such thing"})
    rows = [click.unstyle(line) for line in lines if "±" in line and " % " not in line]
    both = min(len(each.points) for each in kept)
    assert all(row.count("*") == 1 for row in rows[:both])
    assert "ccl: not measured: no such thing" in lines


def test_a_backend_that_fails_does_not_end_the_others(tmp_path):
    # MPI knows nothing of the ranks that torchrun starts.
    path = tmp_path / "communication.json"
    path.write_text("not JSON")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = run_command([*torchrun, "-m", "matsci_hpc", *COMM], MATSCI_HPC_MEASUREMENTS=str(path), timeout_s=100)
    assert result.returncode == 0, result.stderr
    assert "mpi: not measured: torchrun started 2 processes, but MPI sees 1" in result.stdout
    assert "communication.json.damaged" in result.stderr
    assert [each.key.backend for each in read_measurements(path)[0]] == ["gloo"]


def test_one_rank_alone_is_told_how_to_start_it(tmp_path):
    result = run_ranks(1, *COMM, MATSCI_HPC_MEASUREMENTS=str(tmp_path / "new.json"))
    assert result.returncode == 2
    assert "mpirun -n 2 matsci-hpc doctor --comm" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_looked_at_meanwhile(tmp_path):
    result = run_ranks(1, "doctor", tmp_path, "--comm")
    assert result.returncode == 2
    assert "leave DATA_OR_RUN_DIR out" in result.stderr
