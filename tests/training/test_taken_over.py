"""Fine-tuning: what a run takes from another one, what it says of that, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from ase.data import chemical_symbols
from fine_tuned import error_of, noted, saved
from ranks import run_ranks
from safetensors.torch import load_file
from test_exactness import assert_same_run

from matsci_hpc.analysis.report import write_report
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.training.checkpoint import CHECKSUMS
from matsci_hpc.training.learned_from import learned_elements, read_learned_from
from matsci_hpc.whole_files import file_checksum

pytestmark = pytest.mark.mpi


def test_moments_of_the_encoder_are_kept_if_wanted_and_of_nothing_else(pretrained, observed):
    _, kept = observed("kept", 2, "steps=1", f"init_from={pretrained}", "fine_tune.optimizer=kept")
    _, reset = observed("reset", 1, "steps=1", f"init_from={pretrained}")
    theirs = saved(pretrained, 8, "optimizer")
    assert load_file(reset / "optimizer-0.safetensors") == {}
    for rank in range(2):
        ours = load_file(kept / f"optimizer-{rank}.safetensors")
        assert ours.keys() == {name for name in theirs if name.startswith("encoder.")}
        assert len(ours) > 30
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_parts_that_are_not_wanted_begin_as_those_of_the_seed(pretrained, observed):
    begin = ("steps=1", f"init_from={pretrained}", "fine_tune.reinitialize=[elements]", "fine_tune.optimizer=kept")
    run, seen = observed("anew", 2, *begin)
    _, scratch = observed("scratch", 1, "steps=1")
    theirs, moments = saved(pretrained, 8), saved(pretrained, 8, "optimizer")
    random = load_file(scratch / "model-0.safetensors")
    table = "encoder.elements.weight"
    for rank in range(2):
        ours = load_file(seen / f"model-{rank}.safetensors")
        assert torch.equal(ours[table], random[table])
        assert not torch.equal(ours[table], theirs[table])
        taken = [name for name in ours if name.startswith("encoder.") and name != table]
        assert all(torch.equal(ours[name], theirs[name]) for name in taken)
        assert not all(torch.equal(random[name], theirs[name]) for name in taken)
        kept = load_file(seen / f"optimizer-{rank}.safetensors").keys()
        assert kept == {name for name in moments if name.partition("|")[0] in taken}
    known = noted(run)
    numbers = random[table].numel()
    assert known["not_loaded"][0] == {
        "what": f"elements of the encoder ({numbers:,} parameters)", "why": "fine_tune.reinitialize"
    }  # fmt: skip
    assert not any("never trained on" in each for each in known["warnings"])
    # What this run has learned itself is all that a later one may rely on.
    checkpoint = run / "checkpoints/step-000001"
    assert learned_elements(checkpoint, read_learned_from(checkpoint)) != learned_elements(
        pretrained / "checkpoints/step-000008", read_learned_from(pretrained / "checkpoints/step-000008")
    )


def test_heads_are_taken_where_the_target_is_the_same(whole, observed):
    run, seen = observed(
        "run",
        2,
        "steps=1",
        f"init_from={whole(1)}",
        "fine_tune.heads=matching",
        "data.split=val",
        "data.held_out=train",
    )
    theirs = saved(whole(1), 16) if noted_step(run) == 16 else saved(whole(1), noted_step(run))
    for rank in range(2):
        ours = load_file(seen / f"model-{rank}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())  # scaling, too
    assert "heads of family, gap, metal, with the scaling" in noted(run)["loaded"]


def test_the_head_of_another_derivation_is_not_taken(train):
    targets = "targets={gap: {}, wide: {of: gap, above: %s}}"
    steps = ("steps=2", "evaluate.every_steps=2", "checkpoint.every_steps=2", "schedule.warmup_steps=0")
    before = train("before", 1, *steps, targets % 0.5)
    options = (*steps, f"init_from={before}", "fine_tune.heads=matching")
    same, other = train("same", 1, *options, targets % 0.5), train("other", 1, *options, targets % 2.0)
    assert "heads of gap, wide, with the scaling" in noted(same)["loaded"]
    assert "head of gap, with the scaling" in noted(other)["loaded"]
    why = "it is yes where gap is above 0.5 there and yes where gap is above 2 here"
    assert {"what": "head of wide", "why": why} in noted(other)["not_loaded"]


def noted_step(run: Path) -> int:
    return json.loads((run / "provenance.json").read_text())["init_from"]["step"]


def test_what_is_not_taken_is_said_with_the_reason(pretrained, whole, config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=1", f"init_from={pretrained}"]
    result = run_ranks(2, *words, "fine_tune.heads=matching", "model.head_layers=3", "model.readout=sum")
    assert result.returncode == 0, result.stderr
    known = noted(tmp_path / "run")
    assert known["not_loaded"] == [
        {"what": "Adam's moments", "why": "fine_tune.optimizer is reset"},
        {"what": "heads of family, gap, metal", "why": "it was not learned there"},
        {"what": "head of point_group", "why": "this run does not learn it"},
    ]
    for text in (*known["loaded"], "not loaded: head of point_group: this run does not learn it"):
        assert text in result.stdout
    assert "model.readout is sum here and mean there" in known["differences"]
    assert any(
        "lengths are in radii of a symmetry cloud there and in angstrom here" in each for each in known["differences"]
    )
    report = write_report(tmp_path / "run").read_text()
    assert "What it began with" in report
    assert "this run does not learn it" in report
    other = run_ranks(1, "train", config, f"run_dir={tmp_path / 'other'}", "steps=1", f"init_from={whole(1)}",
                      "fine_tune.heads=matching", "model.head_layers=3")  # fmt: skip
    assert other.returncode == 0, other.stderr
    assert noted(tmp_path / "other")["not_loaded"][1]["why"] == "its net.2.bias is [3] there and [10] here"


def test_a_part_that_nothing_would_ever_train_is_refused(pretrained, config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", "steps=4"]
    words += ["fine_tune.neighbors=accept", "fine_tune.reinitialize=[elements]", "fine_tune.freeze=encoder"]
    said = error_of(run_ranks(2, *words))
    assert "encoder.elements: random by reinitialize and frozen for the whole run" in said
    assert run_ranks(1, *words, "fine_tune.freeze_steps=3").returncode == 0


def test_an_exported_file_is_as_good_as_its_run(pretrained, whole, config, tmp_path, lines):
    file, heads = tmp_path / "model.safetensors", tmp_path / "whole.safetensors"
    assert run_ranks(1, "export", pretrained, "--out", file, "--encoder-only").returncode == 0
    assert run_ranks(1, "export", whole(1), "--out", heads).returncode == 0
    options = ("steps=2", "fine_tune.neighbors=accept", "fine_tune.heads=matching")
    for name, begin in (("run", pretrained), ("file", file), ("heads-run", whole(1)), ("heads-file", heads)):
        result = run_ranks(2, "train", config, f"run_dir={tmp_path / name}", f"init_from={begin}", *options)
        assert result.returncode == 0, result.stderr
    for pair in (("run", "file"), ("heads-run", "heads-file")):
        assert_same_run(lines, *(tmp_path / name for name in pair), steps=2)
        by_run, by_file = (json.loads((tmp_path / name / "provenance.json").read_text()) for name in pair)
        assert by_file["init_from"] | {"path": ""} == by_run["init_from"] | {"path": ""}
        assert by_file["fine_tune"]["loaded"] == by_run["fine_tune"]["loaded"]
        assert by_file["fine_tune"]["differences"] == by_run["fine_tune"]["differences"]
        for one, other in zip(by_file["fine_tune"]["warnings"], by_run["fine_tune"]["warnings"], strict=True):
            assert one.partition("its encoder")[2] == other.partition("its encoder")[2]
    assert any("lengths are in radii" in each for each in noted(tmp_path / "file")["differences"])
    assert "heads of family, gap, metal, with the scaling" in noted(tmp_path / "heads-file")["loaded"][1]
    # The card of what was fine-tuned tells what the encoder had learned before, also from a file.
    assert run_ranks(1, "export", tmp_path / "file", "--out", tmp_path / "card").returncode == 0
    assert "clouds" in (tmp_path / "card/README.md").read_text()


def test_an_exported_file_that_does_not_fit_is_refused(pretrained, config, tmp_path):
    file = tmp_path / "model.safetensors"
    assert run_ranks(1, "export", pretrained, "--out", file).returncode == 0
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={file}", "steps=1"]
    assert "lengths are in radii of" in error_of(run_ranks(1, *words, "fine_tune.neighbors=refuse"))
    assert "model.width=" in error_of(run_ranks(1, *words, "fine_tune.neighbors=accept", "model.width=5"))
    file.write_bytes(file.read_bytes()[:-4] + b"gone")
    assert "init_from: " in (said := error_of(run_ranks(2, *words, "fine_tune.neighbors=accept")))
    assert "damaged" in said


def test_other_neighbours_are_refused(pretrained, config, tmp_path):
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", "steps=1"]
    error = error_of(run_ranks(2, *words, "fine_tune.neighbors=refuse"))
    assert "lengths are in radii of a symmetry cloud there and in angstrom here" in error
    assert "set fine_tune.neighbors=accept" in error


def trained_elements(data: Path) -> set[int]:
    """Elements of the training split, from the files alone."""
    data_set, found = DataSet(data), set()
    split = list(data_set.manifest.splits).index("train")
    for record in data_set.manifest.shards:
        with h5py.File(data / record.file) as file:
            offsets, numbers = file["offsets/atoms"][:], file["atoms/atomic_number"][:]
            for row in (file["structures/split"][:] == split).nonzero()[0]:
                found |= set(numbers[offsets[row] : offsets[row + 1]].tolist())
    return found


def test_elements_that_pretraining_never_saw_are_named(pretrained, clouds, crystals, config, tmp_path):
    checkpoint = pretrained / "checkpoints" / "step-000008"
    learned = learned_elements(checkpoint, read_learned_from(checkpoint))
    assert set(learned) == trained_elements(clouds)  # 56 samples in epochs of 21
    data_set = DataSet(crystals)
    here = set()
    for number in range(len(data_set.manifest.shards)):
        here |= set(data_set.shard(number)["atoms/atomic_number"].tolist())
    new = here - set(learned)
    assert new
    assert here - new
    words = ["train", config, f"run_dir={tmp_path / 'run'}", f"init_from={pretrained}", "steps=1"]
    error = error_of(run_ranks(1, *words, "fine_tune.elements=refuse"))
    assert f"never trained on {len(new)} of the {len(here)} elements of these data" in error
    result = run_ranks(2, *words)
    assert result.returncode == 0
    (warning,) = [line for line in result.stderr.splitlines() if "never trained on" in line]
    named = warning.partition("these data: ")[2].partition(";")[0]
    assert set(re.findall(r"([A-Z][a-z]?) \(", named)) == {chemical_symbols[each] for each in new}
    # What the first encoder learned counts for a third one, whatever this one saw in its one step.
    last = tmp_path / "run" / "checkpoints" / "step-000001"
    assert set(learned) <= set(learned_elements(last, read_learned_from(last)))
    assert read_learned_from(last).earlier_elements == learned


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_release_says_less(whole, config, tmp_path):
    run = Path(shutil.copytree(whole(1), tmp_path / "before"))
    for checkpoint in (run / "checkpoints").glob("step-*"):
        state = json.loads((checkpoint / "state.json").read_text())
        del state["learned_from"]
        (checkpoint / "state.json").write_text(json.dumps(state))
        sums = json.loads((checkpoint / CHECKSUMS).read_text()) | {
            "state.json": file_checksum(checkpoint / "state.json")
        }
        (checkpoint / CHECKSUMS).write_text(json.dumps(sums))
    words = ["train", config, f"run_dir={tmp_path / 'run'}", "steps=1", f"init_from={run}"]
    result = run_ranks(1, *words, "fine_tune={heads: matching, neighbors: refuse}")
    assert result.returncode == 0, result.stderr
    known = noted(tmp_path / "run")
    assert (
        known["not_loaded"][1]["why"]
        == "the checkpoint, of an earlier release, does not say of what kind its targets are"
    )
    assert known["differences"] == []  # the cutoff stands in data.json of the run
    shutil.rmtree(tmp_path / "run")
    (run / "data.json").unlink()
    assert run_ranks(1, *words).returncode == 0
    assert noted(tmp_path / "run")["differences"] == ["the cutoff is 4 here; what it was there is not known"]
