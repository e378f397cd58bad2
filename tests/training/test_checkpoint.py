import json
import shutil

import pytest

from matsci_hpc.training.checkpoint import (
    checkpoint_name,
    list_checkpoints,
    newest_usable,
    prune_checkpoints,
)
from matsci_hpc.training.run_state import RunState
from matsci_hpc.whole_files import file_checksum


def kept(folder, keep: int, state: RunState, *steps: int) -> list[int]:
    for step in steps:
        (folder / checkpoint_name(step)).mkdir()
    prune_checkpoints(folder, keep, state)
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(folder)]


def test_the_newest_and_the_best_are_kept(tmp_path):
    assert kept(tmp_path, 2, RunState(step=40, best_step=10), 10, 20, 30, 40) == [40, 30, 10]


def test_damaged_ones_that_the_run_fell_back_from_do_not_push_out_good_ones(tmp_path):
    # The run could read neither 30 nor 40, went on from 20 and has just saved 25.
    assert kept(tmp_path, 1, RunState(step=25), 20, 25, 30, 40) == [40, 30, 25]


def test_what_a_killed_life_left_half_written_is_swept(tmp_path):
    (tmp_path / ".step-000013.part").mkdir()
    assert kept(tmp_path, 1, RunState(step=20), 20) == [20]
    assert not list(tmp_path.glob(".*"))


def rewrite(path, change):
    """Change a checkpoint's state and make its checksum fit, as no accident would."""
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(change(record)))
    sums = json.loads((path / "checksums.json").read_text())
    sums["state.json"] = file_checksum(path / "state.json")
    (path / "checksums.json").write_text(json.dumps(sums))


def run_with(**changes):
    return lambda record: record | {"run": record["run"] | changes}


DAMAGE = {
    "no checksums": lambda path: (path / "checksums.json").unlink(),
    "empty checksums": lambda path: (path / "checksums.json").write_text("{}"),
    "a list of checksums": lambda path: (path / "checksums.json").write_text("[1]"),
    "null for checksums": lambda path: (path / "checksums.json").write_text("null"),
    "deep checksums": lambda path: (path / "checksums.json").write_text("[" * 100_000),
    "no model": lambda path: (path / "model.safetensors").unlink(),
    "a folder for a model": lambda path: ((path / "model.safetensors").unlink(), (path / "model.safetensors").mkdir()),
    "a list for a state": lambda path: rewrite(path, lambda _: []),
    "no run": lambda path: rewrite(path, lambda record: record | {"run": None}),
    "a run without epoch": lambda path: rewrite(path, lambda record: (record["run"].pop("epoch"), record)[1]),
    "a step in words": lambda path: rewrite(path, run_with(step="20")),
    "a step below zero": lambda path: rewrite(path, run_with(step=-5)),
    "another step": lambda path: rewrite(path, run_with(step=10)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_any_damage_falls_back_to_the_one_before(copy_of_whole, what):
    folder = copy_of_whole(1) / "checkpoints"
    newest, before, *_ = list_checkpoints(folder)
    DAMAGE[what](newest)
    chosen, faults = newest_usable(folder)
    assert chosen == before
    assert len(faults) == 1
    assert str(newest) in faults[0]


def test_foreign_folders_are_no_checkpoints(copy_of_whole):
    folder = copy_of_whole(1) / "checkpoints"
    known = list_checkpoints(folder)
    for name in ("step-²", "step-1", "step-000020.old", "step-", "backup"):
        (folder / name).mkdir()
    shutil.copytree(known[0], folder / "step-000020 copy")
    assert list_checkpoints(folder) == known
