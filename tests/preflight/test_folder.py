import json
import subprocess
import sys

import pytest
from ranks import environment, run_ranks

from matsci_hpc.preflight.folder import data_set_findings, newest_step, run_findings

HOLD = """
import sys
from pathlib import Path
from matsci_hpc.training.run_folder import run_lock
lock = run_lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


def look(config):
    return [(each.level, each.text) for each in run_findings(config)]


@pytest.fixture
def trained(train_config, tmp_path):
    """The config of a run that was really trained, stopped after 4 of its 6 steps by its config."""
    config = train_config(steps=4, checkpoint={"every_steps": 2})
    done = run_ranks(1, "train", tmp_path / "train.yaml")
    assert done.returncode == 0, done.stderr
    return config


def test_new_run(train_config, tmp_path):
    config = train_config()
    assert look(config) == [("ok", f"{config.run_dir}: a new run of 6 steps")]
    config.run_dir.mkdir()
    for name in ("job.sbatch", "slurm-7.out", "job.status", "job-7-1.env", "STOP"):
        (config.run_dir / name).touch()
    assert look(config)[0][0] == "ok"
    assert tmp_path


def test_folder_of_something_else(train_config):
    config = train_config()
    config.run_dir.mkdir()
    (config.run_dir / "thesis.tex").touch()
    assert look(config) == [("error", f"{config.run_dir}: not empty and holds no run")]


def test_run_that_is_complete_goes_on_or_is_over(trained, train_config):
    assert newest_step(trained.run_dir) == 4
    (finding,) = run_findings(trained)
    assert finding.level == "warning"
    assert "complete with 4 steps" in finding.text
    assert look(train_config(steps=10))[0] == ("ok", f"{trained.run_dir}: goes on from step 4, 6 steps are left")
    (trained.run_dir / "DONE").unlink()
    level, text = look(train_config(steps=3))[0]
    assert level == "error"
    assert "has taken 4 steps, more than the 3 of the config" in text


@pytest.mark.parametrize("changes", [{"seed": 3}, {"batch": {"graphs": 9}}, {"precision": "float64"}])
def test_resumed_run_with_another_fixed_section(changes, trained, train_config):
    ((level, text),) = look(train_config(**{"steps": 10} | changes))
    assert level == "error"
    assert f"holds a run with another {next(iter(changes))!r}" in text
    assert trained


def test_free_keys_may_change(trained, train_config):
    assert look(train_config(steps=10, batch={"graphs": 8, "micro_batches": 2}, log_every=3))[0][0] == "ok"
    assert trained


def test_another_process_trains_there(train_config):
    config = train_config()
    config.run_dir.mkdir()
    words = [sys.executable, "-c", HOLD, str(config.run_dir)]
    with subprocess.Popen(words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        found = look(config)
        holder.communicate("\n")
    assert found[0][0] == "warning"
    assert f"process {holder.pid} on" in found[0][1]
    assert "is training here" in found[0][1]
    assert [level for level, _ in look(config)] == ["ok"]


def test_data_set_folders(tmp_path, crystals):
    def level(folder):
        (finding,) = data_set_findings(folder)
        return finding.level

    assert level(tmp_path / "new") == "ok"
    assert level(crystals) == "warning"
    (tmp_path / "half/.work").mkdir(parents=True)
    (tmp_path / "half/shard-00000.h5").touch()
    (finding,) = data_set_findings(tmp_path / "half")
    assert (finding.level, finding.text.partition(": ")[2]) == ("ok", "goes on, 1 shard of an earlier start are kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text(json.dumps({}))
    assert level(tmp_path / "full") == "error"
