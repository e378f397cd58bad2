"""Ranks joined by Horovod learn what one rank learns, stop and go on, and do not wait for the dead."""

import importlib.util
import os
import sys

import pytest
from ranks import mpirun, run_command, run_ranks
from test_exactness import LONG, assert_same_run
from test_hangs import FAULTS, WRAPPER

built = importlib.util.find_spec("horovod") is not None
needs_horovod = pytest.mark.skipif(not built, reason="no Horovod here: make test-horovod")
OPERATIONS = ("mpi", "ccl")


def horovod(operations):
    return ("parallel.backend=horovod", f"parallel.horovod_operations={operations}")


@pytest.fixture(scope="module")
def one_rank(train_in, tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("horovod") / "one", 1, *LONG)


@pytest.mark.horovod
@needs_horovod
@pytest.mark.parametrize(("operations", "ranks"), [("mpi", 2), ("ccl", 2), ("ccl", 4)])
def test_many_ranks_agree_with_one(one_rank, train, lines, operations, ranks):
    many = train("many", ranks, *LONG, *horovod(operations))
    assert lines(many)[0]["ranks"] == ranks
    assert_same_run(lines, one_rank, many)


@pytest.mark.horovod
@needs_horovod
@pytest.mark.parametrize("operations", OPERATIONS)
def test_a_stopped_run_goes_on_with_another_number_of_ranks(one_rank, train, lines, operations):
    first = train("stopped", 2, *LONG, *horovod(operations), "max_time_s=0.0001")
    assert not (first / "DONE").exists()
    train("stopped", 3, *LONG, *horovod(operations), "max_time_s=null")
    assert_same_run(lines, one_rank, first)


@pytest.mark.horovod
@needs_horovod
@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize(("fault", "rank"), [("killed", 1), ("stopped", 1)])
def test_a_rank_that_dies_or_hangs_ends_the_job(config, tmp_path, operations, fault, rank):
    program = tmp_path / "faulty.py"
    text = WRAPPER.format(rank=str(rank), fault=FAULTS[fault])
    program.write_text(text.replace("OMPI_COMM_WORLD_RANK", "PMI_RANK"))
    words = [sys.executable, program, "train", config, f"run_dir={tmp_path / 'run'}", "parallel.timeout_s=4"]
    result = run_command(mpirun(2, *words, *horovod(operations)), timeout_s=100)
    assert result.returncode != 0
    if fault == "stopped":
        assert f"rank {rank} on " in result.stderr


@pytest.mark.skipif(built, reason="Horovod is here")
def test_without_horovod_there_is_a_clear_word(config, tmp_path):
    result = run_ranks(2, "train", config, f"run_dir={tmp_path / 'run'}", "parallel.backend=horovod")
    assert result.returncode == 3, result.stderr
    assert "parallel.backend: horovod cannot be used here: Horovod is not installed; `make horovod`" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.horovod
@needs_horovod
def test_local_jobs_find_the_mpi_of_the_environment(config, tmp_path):
    variables = {name: value for name, value in os.environ.items() if name != "I_MPI_FABRICS"}
    words = [sys.executable, "-m", "matsci_hpc", "submit", config, "--site", "local", "--ranks", "2"]
    words += [f"run_dir={tmp_path / 'run'}", "steps=3", *horovod("ccl")]
    result = run_command(list(map(str, words)), timeout_s=200, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "run" / "DONE").exists()
