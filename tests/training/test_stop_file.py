"""STOP is obeyed whenever it comes, once; STOPPED says how a life ended."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from ranks import mpirun, run_command, run_ranks
from safetensors.torch import load_file

from matsci_hpc.training.stopping import SIGNALS, StopRequests, StopSignals

pytestmark = pytest.mark.mpi


def files_of(run: Path) -> dict[str, tuple[int, bytes]]:
    """Content and time of each file of the checkpoints."""
    paths = (path for path in (run / "checkpoints").rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_that_came_while_the_job_waited_is_obeyed_before_the_first_step(config, train, whole, tmp_path, ranks):
    run = tmp_path / "run"
    (run / "job.submitit").mkdir(parents=True)
    for name in ("STOP", "STOPPED", "job.sbatch", "job.pbs", "job.lsf", "job.flux", "slurm-1.out", "job.status"):
        (run / name).touch()
    result = run_ranks(ranks, "train", config, f"run_dir={run}")
    assert result.returncode == 0, result.stderr
    assert f"stopped at step 0 ({run / 'STOP'} appeared)" in result.stdout
    assert (run / "STOPPED").read_text() == "by hand\n"
    assert not any((run / name).exists() for name in ("STOP", "DONE", "metrics.jsonl", "checkpoints"))
    train("run", ranks)
    assert (run / "DONE").exists()
    assert not (run / "STOPPED").exists()
    for name, value in load_file(whole(ranks) / "checkpoints/step-000020/model.safetensors").items():
        assert torch.equal(load_file(run / "checkpoints/step-000020/model.safetensors")[name], value), name


def test_a_run_that_is_resumed_over_it_takes_no_step_and_saves_nothing(config, train, lines):
    run = train("run", 2, "max_time_s=0.0001")
    assert (run / "STOPPED").read_text() == "max_time_s\n"
    (run / "STOP").write_text("time limit\n")
    before, records = files_of(run), lines(run)
    result = run_ranks(2, "train", config, f"run_dir={run}")
    assert result.returncode == 0, result.stderr
    assert "stopped at step 1 (" in result.stdout
    assert (run / "STOPPED").read_text() == "time limit\n"
    assert not (run / "STOP").exists()
    assert (files_of(run), lines(run)) == (before, records)


def test_a_life_that_cannot_begin_leaves_it(copy_of_whole, config):
    run = copy_of_whole(1)
    (run / "STOP").touch()
    result = run_ranks(1, "train", config, f"run_dir={run}", "seed=8")
    assert result.returncode == 2
    assert (run / "STOP").exists()


def test_a_complete_run_has_no_use_for_it(copy_of_whole, train_in):
    run = copy_of_whole(1)
    (run / "STOP").touch()
    (run / "STOPPED").write_text("by hand\n")
    train_in(run, 1)
    assert not (run / "STOP").exists()
    assert not (run / "STOPPED").exists()
    train_in(run, 1, "steps=21")  # nothing is left that would stop it
    assert (run / "DONE").exists()


def test_one_that_comes_after_the_last_step_does_not_wait_for_another_run(config, tmp_path):
    program, run = tmp_path / "late.py", tmp_path / "run"
    program.write_text(
        "import os\nfrom matsci_hpc import cli\nfrom matsci_hpc.training import loop\n"
        "original = loop.complete_run\n"
        "def late(folder, result):\n    folder.stop.touch()\n    original(folder, result)\n"
        "loop.complete_run = late\ncli.main()\n"
    )
    result = run_command(mpirun(2, sys.executable, program, "train", config, f"run_dir={run}", "steps=2"))
    assert result.returncode == 0, result.stderr
    assert (run / "DONE").exists()
    assert not (run / "STOP").exists()
    assert not (run / "STOPPED").exists()


@pytest.fixture
def requests(tmp_path):
    """Makes the requests of a life, and gives the signals back to pytest."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield lambda **options: StopRequests(
        StopSignals(), tmp_path / "STOP", **({"looks": True, "max_time_s": None} | options)
    )
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "by hand"),
        ("time limit\n", "time limit"),
        ("time limit", "time limit"),
        ("preempted\nby a job of higher priority\n", "preempted"),
        ("lunch\n", "by hand"),
        ("\ufffd" * 1000, "by hand"),
    ],
)
def test_who_asked(requests, tmp_path, text, line):
    (tmp_path / "STOP").write_text(text)
    life = requests()
    assert life.requested()
    assert (tmp_path / "STOP").exists()  # until all is saved
    assert life.use_up() == line
    assert not list(tmp_path.iterdir())


def test_words_written_after_the_file_was_noticed_count(requests, tmp_path):
    (tmp_path / "STOP").touch()
    life = requests()
    assert life.requested()
    (tmp_path / "STOP").write_text("time limit\n")
    assert life.use_up() == "time limit"


def test_one_that_comes_while_the_life_stops_for_another_reason_is_obeyed_by_that(requests, tmp_path):
    life = requests(max_time_s=1e-9)
    assert life.requested()
    assert life.reason == "max_time_s is over"
    (tmp_path / "STOP").touch()
    assert life.use_up() == "by hand"
    assert not (tmp_path / "STOP").exists()
    assert life.use_up() == "max_time_s"


def test_one_that_comes_while_another_is_used_up_is_kept(requests, tmp_path, monkeypatch):
    stop = tmp_path / "STOP"
    stop.write_text("time limit\n")
    life = requests()
    assert life.requested()
    read = Path.read_bytes

    def touched_meanwhile(path: Path) -> bytes:
        stop.touch()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", touched_meanwhile)
    assert life.use_up() == "time limit"
    assert stop.exists()


def test_a_rank_that_does_not_look_knows_nothing_of_it(requests, tmp_path):
    (tmp_path / "STOP").touch()
    assert not requests(looks=False).requested()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_every_signal_is_a_request(requests, number):
    life = requests()
    assert not life.requested()
    signal.raise_signal(number)
    assert life.requested()
    assert life.use_up() == life.reason == f"signal {number.name}"
