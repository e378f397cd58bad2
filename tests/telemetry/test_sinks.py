import sys
import threading

import pytest
from sink_logs import read_mlflow, read_tensorboard, read_wandb

from matsci_hpc.telemetry.sinks import thread
from matsci_hpc.telemetry.sinks.opening import open_sinks
from matsci_hpc.telemetry.sinks.sink import Origin, numbers_of
from matsci_hpc.telemetry.sinks.thread import SinkThread, close_sinks

READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb}


@pytest.fixture
def no_network(monkeypatch):
    """As on a compute node: nothing leads outside."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def log(name, folder, life, steps, *, written=0, same=False):
    """A life that goes on from the step before the first of these, and says by its loss which life it was."""
    (sink,) = open_sinks([name, name], Origin(folder, steps[0] - 1, written, "seed: 7\n"))
    for step in steps:
        numbers = {"train/loss": step + 0.25 * life, "train/losses/gap (eV)": 1.0, "train/losses/gap [eV]": 2.0}
        sink.write(step, numbers, repeated=same and step <= written)
    close_sinks([sink])


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", READERS)
def test_a_log_is_read_back_and_goes_on_without_repeating_a_step(name, tmp_path, capfd):
    pytest.importorskip(name)
    folder = tmp_path / "a run"
    folder.mkdir()
    log(name, folder, 0, range(1, 9))
    log(name, folder, 1, range(6, 11), written=8, same=True)  # it fell back to a checkpoint of step 5
    found = READERS[name](folder / name)
    assert sorted(step for step, _ in found["train/loss"]) == list(range(1, 11))
    assert [len(values) for tag, values in found.items() if "/gap" in tag] == [10, 10]
    # TensorBoard takes back what is repeated; the others keep what they have.
    repeated = dict(found["train/loss"])[7]
    assert repeated == (7.25 if name == "tensorboard" else 7.0)
    assert "warning" not in capfd.readouterr().err


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", READERS)
def test_steps_that_come_out_otherwise_are_written_again_and_count(name, tmp_path):
    """As after a life with another learning rate."""
    pytest.importorskip(name)
    log(name, tmp_path, 0, range(1, 9))
    log(name, tmp_path, 1, range(6, 11), written=8)
    newest = dict(READERS[name](tmp_path / name)["train/loss"])
    assert newest == {step: step + 0.25 * (step > 5) for step in range(1, 11)}


@pytest.mark.usefixtures("no_network")
def test_runs_of_one_name_are_several_and_the_lives_of_a_run_are_one(tmp_path):
    pytest.importorskip("wandb")
    folders = [tmp_path / study / "мой" for study in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        log("wandb", folder, 0, range(1, 3))
    log("wandb", folders[0], 1, range(3, 5), written=2)
    ids = [(folder / "wandb" / "id").read_text().strip() for folder in folders]
    assert ids[0] != ids[1]
    for folder, known, parts in zip(folders, ids, (2, 1), strict=True):
        found = [path.name for path in folder.glob("wandb/offline-run-*/*.wandb")]
        assert found == [f"run-{known}.wandb"] * parts


def test_numbers_of_a_line_have_paths_and_are_finite():
    line = {"loss": 1, "losses": {"a b": 0.5, "c": float("nan")}, "word": "x", "list": [1], "yes": True, "none": None}
    assert numbers_of(line, "train") == {"train/loss": 1.0, "train/losses/a b": 0.5}


def test_a_sink_without_its_package_is_said_once_with_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (sink,) = open_sinks(["wandb"], Origin(tmp_path, 0, 0, ""))
    for step in range(5):
        sink.write(step, {"x": 1.0})
    close_sinks([sink])
    assert capsys.readouterr().err.count("pip install 'matsci-hpc[wandb]'") == 1


def test_a_sink_that_cannot_write_is_said_once_and_ends_nothing(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    (sink,) = open_sinks(["tensorboard"], Origin(tmp_path, 0, 0, ""))
    for step in range(5):
        sink.write(step, {"x": 1.0})
    close_sinks([sink])
    said = capsys.readouterr().err
    assert said.count("warning: records.sinks: tensorboard: ") == 1
    assert "training goes on without this log" in said


def test_a_sink_that_hangs_holds_up_nobody(monkeypatch, capsys):
    monkeypatch.setattr(thread, "MAX_WAITING", 3)
    monkeypatch.setattr(thread, "CLOSE_WITHIN_S", 0.05)
    free = threading.Event()
    full = SinkThread("mlflow", lambda: free.wait(60))
    for step in range(10):
        full.write(step, {})
    slow = SinkThread("wandb", lambda: free.wait(60))
    slow.write(1, {})
    close_sinks([full, slow])
    free.set()
    said = capsys.readouterr().err
    assert "mlflow: it has not taken 3 lines" in said
    assert "wandb: it has not ended within 0.05 s" in said
    assert said.count("warning") == 2
