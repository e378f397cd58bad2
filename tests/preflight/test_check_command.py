"""The command, from its words to its lines and exit code."""

import json
import shutil
from pathlib import Path

import pytest
from preparation import run_program
from ranks import run_ranks
from record_inputs import write_records

SITE = "scheduler: slurm\nranks_per_node: 2\ncores_per_node: 4\nmemory_per_node: 64G\ntime_limit: '01:00:00'\n"
PREP = "source: {kind: symmetry, samples: 90}\nout: datasets/sym\nneighbors: {cutoff: 2}\nshard_size: 30\n"


@pytest.fixture
def here(tmp_path, train_config):
    train_config()
    (tmp_path / "prep.yaml").write_text(PREP)
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path


def check(*words, cwd):
    # No Slurm, should there be one on this machine.
    return run_program("check", *words, cwd=cwd, environment={"PATH": "/nowhere"})


def findings(done):
    (run,) = json.loads(done.stdout)["runs"]
    return {(each["level"], each["topic"]): each for each in run["findings"]}


def test_a_good_run(here):
    done = check("train.yaml", "--site", "./site.yaml", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    head, *lines, empty, verdict = done.stdout.splitlines()
    assert head == "train run: 1 node, 2 ranks"
    assert empty == ""
    assert "nothing speaks against it" in verdict or "may fail" in verdict
    advice = [line for line in lines if line.startswith(" ")]
    lines = [line for line in lines if line not in advice]
    levels = {line.split()[0] for line in lines}
    assert "error" not in levels
    # Aligned: every level and topic in a column of its own.
    assert all(line[8] == " " != line[9] and line[21] == " " != line[22] for line in lines)
    assert all(line.startswith(" " * 22 + "-> ") for line in advice)
    topics = {line[9:21].strip() for line in lines}
    assert {"node", "paths", "run_dir", "data", "batch", "locking", "balance", "memory"} <= topics
    assert {"speed", "wall time", "checkpoint", "margin", "disk", "scheduler"} <= topics
    assert not (here / "run").exists()
    assert "\x1b" not in done.stdout
    assert not [each for each in here.iterdir() if each.name.startswith(".matsci")]


def test_an_error_has_exit_code_2_and_json_says_the_same(here):
    done = check("train.yaml", "--site", "./site.yaml", "--ranks", "9", "--nodes", "1", "--json", cwd=here)
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert found["errors"] == 1
    assert found["runs"][0]["ranks"] == 9
    assert ("error", "node") in findings(done)
    assert "9 ranks a node x 1 core = 9 cores, and a node has 4" in findings(done)["error", "node"]["text"]
    assert ("warning", "batch") in findings(done)


def test_too_little_memory(here):
    done = check("train.yaml", "job.memory=20M", "--site", "./site.yaml", "--json", cwd=here)
    assert done.returncode == 2
    assert "too little even for the tensors" in findings(done)["error", "memory"]["text"]


def test_a_run_that_lacks_only_its_final_evaluation(here, train_config):
    """As one that was killed in it."""
    config = train_config(steps=4, evaluate={"final_split": "val"})
    trained = run_ranks(1, "train", here / "train.yaml")
    assert trained.returncode == 0, trained.stderr
    assert ("ok", "wall time") not in findings(check("train.yaml", "--site", "./site.yaml", "--json", cwd=here))
    (config.run_dir / "DONE").unlink()
    found = findings(check("train.yaml", "--site", "./site.yaml", "--json", cwd=here))
    assert "for the evaluations after the last step" in found["ok", "wall time"]["text"]


def test_a_chain(here):
    words = ["prep.yaml", "train.yaml", "data.train=[datasets/sym]", "--site", "./site.yaml"]
    done = check(*words, cwd=here)
    assert done.returncode == 0, done.stdout
    assert "prep sym: 1 node, 2 ranks" in done.stdout
    assert "an earlier job makes it" in done.stdout
    assert "90 inputs in 3 blocks of 30 for 2 ranks" in done.stdout
    alone = check(*words[1:], cwd=here)
    assert alone.returncode == 2
    assert "no data set here" in alone.stdout


def test_damage_is_found_before_anything_is_measured(here, crystals):
    broken = Path(shutil.copytree(crystals, here / "broken"))
    (broken / "shard-00000.h5").write_bytes(b"")
    done = check("train.yaml", "data.train=[broken]", "--site", "./site.yaml", "--json", cwd=here)
    assert done.returncode == 2
    found = findings(done)
    assert "damaged: shard-00000.h5 (0 bytes instead of" in found["error", "data"]["text"]
    assert ("note", "measured") in found


@pytest.mark.slow
def test_speed_of_earlier_lives_and_of_a_like_run(here):
    assert run_program("train", "train.yaml", "run_dir=first", "steps=12", cwd=here).returncode == 0
    words = ["train.yaml", "--site", "./site.yaml", "--json"]
    like = findings(check(*words, "--like", "first", cwd=here))
    assert "records of first, scaled from 1 to 2 ranks" in like["ok", "speed"]["text"]
    own = findings(check("train.yaml", "run_dir=first", "steps=40", *words[1:], cwd=here))
    assert "records of first" in own["ok", "speed"]["text"]
    assert "28 steps are left" in own["ok", "run_dir"]["text"]
    assert "for 28 steps" in own["ok", "wall time"]["text"]
    wrong = check(*words, "--like", "nowhere", cwd=here)
    assert wrong.returncode == 2


def test_a_preparation_of_which_only_a_part_is_looked_at(here):
    write_records("extxyz", here / "a.xyz", [1, 2] * 600)
    (here / "records.yaml").write_text(
        "source: {kind: extxyz, path: a.xyz, targets: {gap: {key: gpa}}}\nout: frames\nneighbors: {cutoff: 2}\n"
    )
    found = findings(check("records.yaml", "--site", "./site.yaml", "--json", cwd=here))
    assert (
        "inputs (estimated, as only a part of the input was looked at) on 2 ranks" in found["ok", "wall time"]["text"]
    )
    assert "nothing of gap in the part of the input that was looked at" in found["warning", "input"]["text"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train.yaml", "--site", "nosuch"], "unknown site 'nosuch'"),
        (["train.yaml"], "Missing option '--site'"),
        (["train.yaml", "--site", "local", "--time", "soon"], "write it as HH:MM:SS"),
        (["nosuch.yaml", "--site", "local"], "cannot read the config"),
    ],
)
def test_words_that_cannot_be_understood(words, text, here):
    done = check(*words, cwd=here)
    assert done.returncode == 2
    assert text in done.stderr
