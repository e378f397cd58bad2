"""Stops at awkward moments: what was due is made up for by the next life."""

import signal
import subprocess
import sys

import pytest
from ranks import environment, mpirun, run_command

pytestmark = pytest.mark.mpi
# Rank 1 alone is asked to stop: in a step, or within an evaluation of many batches.
WRAPPER = """\
import os, signal
from matsci_hpc import cli
from matsci_hpc.training import evaluation, step
evaluation.BATCH_COST = 1.0
evaluation.BATCHES_PER_LOOK = 2
module, name, number = {where}
original = getattr(module, name)
calls = 0
def asked(*arguments):
    global calls
    calls += 1
    if calls == number and os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return original(*arguments)
setattr(module, name, asked)
cli.main()
"""


@pytest.mark.parametrize(
    "where", ["step, 'local_losses', 8", "evaluation, 'checked_batch', 3"], ids=["step", "evaluation"]
)
def test_an_evaluation_that_was_due_at_the_stop_is_done_by_the_next_life(whole, config, tmp_path, lines, where):
    program, run = tmp_path / "asked.py", tmp_path / "run"
    program.write_text(WRAPPER.format(where=where))
    words = ["train", config, f"run_dir={run}"]
    stopped = run_command(mpirun(2, sys.executable, program, *words))
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped at step 8 (another rank was asked to)" in stopped.stdout
    assert not (run / "evaluations.jsonl").exists()
    resumed = run_command(mpirun(2, sys.executable, "-m", "matsci_hpc", *words))
    assert resumed.returncode == 0, resumed.stderr
    for name in ("metrics", "evaluations"):
        mine, uninterrupted = ([(line["step"], line["loss"]) for line in lines(each, name)] for each in (run, whole(2)))
        assert mine == uninterrupted, name


def test_a_stop_waits_for_the_checkpoint_that_is_being_written(config, tmp_path):
    """Saving takes far longer than a step here, so that the stop comes while an earlier step is being written."""
    program, run = tmp_path / "slow.py", tmp_path / "run"
    program.write_text(
        "import os, time\noriginal = os.fsync\n"
        "def slow(descriptor):\n    time.sleep(0.05)\n    original(descriptor)\n"
        "os.fsync = slow\nfrom matsci_hpc.cli import main\nmain()\n"
    )
    words = [program, "train", config, f"run_dir={run}", "steps=100000", "checkpoint.every_steps=3", "max_time_s=1"]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, errors
    stopped_at = int(output.rpartition("stopped at step ")[2].split()[0].replace(",", ""))
    assert (run / "checkpoints" / f"step-{stopped_at:06d}" / "checksums.json").exists()
    assert not list((run / "checkpoints").glob(".*"))
