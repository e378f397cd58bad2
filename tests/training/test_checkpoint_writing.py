"""What a killed write, a full disk and other versions do to checkpoints and records."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import environment, run_command, run_ranks

from matsci_hpc.training.checkpoint import CHECKSUMS, list_checkpoints, newest_usable, verify_checkpoint
from matsci_hpc.whole_files import file_checksum

SLOW_DISK = """\
import os, time
original = os.fsync
def slow(descriptor):
    time.sleep(0.08)
    original(descriptor)
os.fsync = slow
from matsci_hpc.cli import main
main()
"""
FULL_DISK = """\
import os
from pathlib import Path
from matsci_hpc import cli
from matsci_hpc.training import loop
original = loop.Trainer._step
run, full, free = Path({run!r}), {full}, {free}
def step(self, works):
    ballast = run / "ballast"
    if self.run.comm.rank == 0 and self.run.state.step == full:
        self.writer.wait()
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    if self.run.comm.rank == 0 and self.run.state.step == free:
        self.writer.wait()
        ballast.unlink()
    return original(self, works)
loop.Trainer._step = step
cli.main()
"""


@pytest.mark.mpi
def test_a_kill_in_the_midst_of_writing_harms_no_earlier_checkpoint(config, tmp_path, lines):
    program, run = tmp_path / "slow.py", tmp_path / "run"
    program.write_text(SLOW_DISK)
    words = ["train", config, f"run_dir={run}", "steps=40", "checkpoint.every_steps=2", "checkpoint.keep=3"]
    before: list[int] = []
    for life in range(3):
        process = subprocess.Popen(
            [sys.executable, str(program), *map(str, words)], env=environment(), stdout=subprocess.DEVNULL
        )
        try:
            # Later and later within a write: with one file, with two, with all but the checksums.
            wait_for_part(run / "checkpoints", files=life + 1, after=max(before, default=0))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert list((run / "checkpoints").glob(".step-*.part"))
        steps = [int(path.name.removeprefix("step-")) for path in list_checkpoints(run / "checkpoints")]
        for path in list_checkpoints(run / "checkpoints"):
            verify_checkpoint(path)
        assert max(steps, default=0) >= max(before, default=0)
        before = steps
    result = run_ranks(1, *words)
    assert result.returncode == 0, result.stderr
    assert (f"resuming at step {max(before)}" in result.stdout) == bool(before)
    assert (run / "DONE").exists()
    assert not list((run / "checkpoints").glob(".step-*.part"))
    assert {line["step"] for line in lines(run)} == set(range(1, 41))


def wait_for_part(folder: Path, files: int, after: int) -> None:
    """Until a checkpoint past a step is half written."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        for part in folder.glob(".step-*.part"):
            try:
                if int(re.sub(r"\D", "", part.name)) > after + 2 and len(list(part.iterdir())) >= files:
                    return
            except OSError:
                continue
        time.sleep(0.002)
    raise AssertionError("no checkpoint was being written")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def run_on(disk: Path, config: Path, full: int, free: int):
    """A run whose disk is full from one step to another."""
    program, run = disk.parent / "full.py", disk / "run"
    program.write_text(FULL_DISK.format(run=str(run), full=full, free=free))
    words = [
        "train",
        config,
        f"run_dir={run}",
        "checkpoint.every_steps=2",
        "evaluate.every_steps=4",
        "checkpoint.keep=2",
    ]
    return run, run_command([sys.executable, str(program), *map(str, words)])


@pytest.mark.mpi
def test_training_goes_on_while_the_disk_is_full(small_disk, config, lines):
    run, result = run_on(small_disk, config, 5, 15)
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    for once in ("the checkpoint of step 4 stays", "metrics.jsonl: No space left on device; training goes on"):
        assert sum(once in line for line in warnings) == 1, result.stderr
    assert sum("checkpoints" in line for line in warnings) == 1
    assert [line["step"] for line in lines(run)] == list(range(1, 21))
    assert [line["step"] for line in lines(run, "evaluations")] == [4, 8, 12, 16, 20]
    assert not list((run / "checkpoints").glob(".*"))
    assert (run / "DONE").exists()


@pytest.mark.mpi
def test_a_last_save_that_fails_says_from_where_the_run_goes_on(small_disk, config):
    run, result = run_on(small_disk, config, 7, 1000)
    assert result.returncode == 3
    assert result.stderr.count("matsci-hpc: error") == 1
    assert "No space left on device" in result.stderr
    assert "step 20 is lost, the same command goes on from step 6" in result.stderr
    assert not (run / "DONE").exists()
    assert not list((run / "checkpoints").glob(".*"))
    (run / "ballast").unlink()
    again = run_ranks(1, "train", config, f"run_dir={run}", "checkpoint.keep=2")
    assert again.returncode == 0, again.stderr
    assert "resuming at step 6" in again.stdout


@pytest.mark.mpi
def test_a_checkpoint_of_another_format_is_named(copy_of_whole, config):
    run = copy_of_whole(1)
    (run / "DONE").unlink()
    newest, _ = newest_usable(run / "checkpoints")
    state = json.loads((newest / "state.json").read_text())
    assert (state["seed"], state["ranks"], state["format_version"]) == (7, 1, 3)
    (newest / "state.json").write_text(json.dumps(state | {"format_version": 1}))
    sums = json.loads((newest / CHECKSUMS).read_text())
    sums["state.json"] = file_checksum(newest / "state.json")
    (newest / CHECKSUMS).write_text(json.dumps(sums))
    result = run_ranks(2, "train", config, f"run_dir={run}")
    assert result.returncode == 2
    assert result.stderr.count("matsci-hpc: error") == 1
    assert "checkpoint format version 1, saved by matsci-hpc " in result.stderr


@pytest.mark.mpi
def test_when_every_checkpoint_is_damaged_the_run_starts_again_and_says_so(copy_of_whole, config):
    run = copy_of_whole(1)
    (run / "DONE").unlink()
    for path in list_checkpoints(run / "checkpoints")[1:]:
        shutil.rmtree(path)
    (list_checkpoints(run / "checkpoints")[0] / CHECKSUMS).unlink()
    result = run_ranks(1, "train", config, f"run_dir={run}", "steps=21")
    assert result.returncode == 0, result.stderr
    assert "none is left, starting from the first step" in result.stderr
