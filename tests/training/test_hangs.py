"""A rank that dies, stops or sits in a loop ends the job, and the message says which one and where it was."""

import re
import sys

import pytest
from ranks import mpirun, run_command

pytestmark = pytest.mark.mpi

FAULTS = {
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "left": "os._exit(0)",
    "loop": "exec('while True: pass')",
    # A library call that never comes back and keeps Python's lock: no thread of this process runs any more.
    "locked": "ctypes.PyDLL(None).pause()",
    "bus": "signal.raise_signal(signal.SIGBUS)",
}
WRAPPER = """\
import ctypes, os, signal, sys
from matsci_hpc.training import step
from matsci_hpc import cli
original = step.local_losses
calls = 0
def faulty(*arguments):
    global calls
    calls += 1
    if calls == 3 and os.environ.get("OMPI_COMM_WORLD_RANK", "0") == {rank!r}:
        {fault}
    return original(*arguments)
step.local_losses = faulty
cli.main()
"""


@pytest.fixture
def faulty_run(config, tmp_path):
    """Training in whose third step one rank runs into a fault while it computes."""

    def run(fault: str, rank: int, ranks: int, backend: str = "auto"):
        program = tmp_path / "faulty.py"
        program.write_text(WRAPPER.format(rank=str(rank), fault=FAULTS[fault]))
        words = [sys.executable, program, "train", config, f"run_dir={tmp_path / 'run'}", "parallel.timeout_s=4"]
        words.append(f"parallel.backend={backend}")
        return run_command(mpirun(ranks, *words) if ranks > 1 else list(map(str, words)), timeout_s=100)

    return run


@pytest.mark.parametrize(
    ("fault", "rank", "ranks"),
    [("stopped", 1, 3), ("stopped", 0, 2), ("loop", 2, 3), ("locked", 1, 2)],
)
def test_a_rank_that_hangs_is_named(faulty_run, fault, rank, ranks):
    result = faulty_run(fault, rank, ranks)
    assert result.returncode == 3, result.stderr
    blamed = set(re.findall(r"error: rank (\d+) on \S+ \(process \d+\) has (?:not|made)", result.stderr))
    assert blamed == {str(rank)}, result.stderr
    assert re.search(r"(at|others wait at) step 3\b", result.stderr), result.stderr
    if fault == "loop":  # its own thread still runs, and sees where it is
        assert "last seen at step 3, phase compute, in " in result.stderr


@pytest.mark.parametrize(("fault", "rank"), [("left", 1), ("bus", 1), ("killed", 0)])
def test_the_survivor_names_the_rank_that_died(faulty_run, fault, rank):
    result = faulty_run(fault, rank, 2)
    assert result.returncode != 0
    pattern = rf"error: rank {1 - rank} on \S+ lost rank {rank} on \S+ \(process \d+\),? .*gone.*step 3\b"
    assert re.search(pattern, result.stderr), result.stderr
    if fault == "bus":
        assert "Fatal Python error: Bus error" in result.stderr


@pytest.mark.parametrize(("fault", "rank"), [("stopped", 1), ("killed", 0)])
def test_the_same_where_mpi_joins_the_ranks(faulty_run, fault, rank):
    result = faulty_run(fault, rank, 2, "mpi")
    assert result.returncode != 0
    # By a rank that was killed, MPI's launcher ends the others at once, and names it.
    by_us, by_launcher = rf"error: .*rank {rank} on \S+ \(process \d+\).*step 3\b", rf"rank {rank} with PID \d+ on node"
    pattern = by_us if fault == "stopped" else f"{by_us}|{by_launcher}"
    assert re.search(pattern, result.stderr), result.stderr


@pytest.mark.parametrize("when", ["before the ranks have met", "after the last step"])
def test_a_rank_that_stops_where_nobody_watches_ends_the_job(config, tmp_path, when):
    """In MPI's own welcome and farewell, which wait for every rank and hold Python's lock."""
    module, name = ("watched", "meet") if when.startswith("before") else ("deadline", "leave_within")
    program = tmp_path / "stops.py"
    program.write_text(
        f"import os, signal\nfrom matsci_hpc.parallel import {module}\nfrom matsci_hpc import cli\n"
        "def stop(*arguments):\n    os.kill(os.getpid(), signal.SIGSTOP)\n"
        f"if os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n    {module}.{name} = stop\ncli.main()\n"
    )
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=2", "parallel.startup_timeout_s=20"]
    result = run_command(mpirun(2, sys.executable, program, *words, "parallel.timeout_s=5"), timeout_s=100)
    assert result.returncode != 0
    if when.startswith("before"):
        assert "Timeout (0:00:25)!" in result.stderr or "waited 20 s to meet all others" in result.stderr
        assert not (tmp_path / "run").exists()
    else:
        assert (tmp_path / "run" / "DONE").exists()
        assert "complete after 2 steps" in result.stdout


def test_parts_of_a_batch_are_progress(config, tmp_path):
    """Each part takes less than the limit, the step as a whole more."""
    program = tmp_path / "slow.py"
    program.write_text(
        "import time\nfrom matsci_hpc.training import step\nfrom matsci_hpc import cli\noriginal = step.local_losses\n"
        "def slow(*arguments):\n    time.sleep(0.8)\n    return original(*arguments)\n"
        "step.local_losses = slow\ncli.main()\n"
    )
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=1", "parallel.timeout_s=3", "batch.micro_batches=5"]
    result = run_command([sys.executable, str(program), *map(str, words)])
    assert result.returncode == 0, result.stderr


def test_one_rank_alone_watches_itself(faulty_run):
    result = faulty_run("loop", 0, 1)
    assert result.returncode == 3
    assert "rank 0 on " in result.stderr
    assert "last seen at step 3, phase compute, in " in result.stderr


def test_what_a_rank_says_before_it_fails_reaches_the_others(config, tmp_path):
    program = tmp_path / "failing.py"
    program.write_text(WRAPPER.format(rank="1", fault="raise RuntimeError('broken on purpose')"))
    result = run_command(mpirun(2, sys.executable, program, "train", config, f"run_dir={tmp_path / 'run'}"))
    assert result.returncode != 0
    assert re.search(r"rank 0 on \S+ lost rank 1 on .*step 3, phase compute: RuntimeError: broken on p", result.stderr)


def test_a_long_evaluation_is_not_a_hang(config, tmp_path):
    """Each batch takes a seventh of the limit, the evaluation as a whole more than twice the limit."""
    program = tmp_path / "slow.py"
    program.write_text(
        "import time\nfrom matsci_hpc.training import evaluation\nfrom matsci_hpc import cli\n"
        "evaluation.BATCH_COST = 1.0\noriginal = evaluation.checked_batch\n"
        "def slow(*arguments):\n    time.sleep(0.3)\n    return original(*arguments)\n"
        "evaluation.checked_batch = slow\ncli.main()\n"
    )
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=1", "parallel.timeout_s=2"]
    result = run_command([sys.executable, str(program), *map(str, words)])
    assert result.returncode == 0, result.stderr
