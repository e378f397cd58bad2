"""Training on a source without files, on real ranks: the numbers of prepared shards, and a stream without end."""

import json
from collections import Counter

import pytest
import torch
from ranks import run_ranks

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.sources.cloud_generator import VERSION
from matsci_hpc.training.run_folder import RunFolder
from matsci_hpc.training.setup import build_run, resume

pytestmark = pytest.mark.mpi

CLOUDS = "kind: symmetry, seed: 9, max_atoms: 12, groups: [C2, C3, Ci, D2]"
FINITE = f"{{source: {{{CLOUDS}, samples: {{train: 150, val: 40}}}}, neighbors: {{cutoff: 2.0}}}}"
ENDLESS = f"{{source: {{{CLOUDS}, samples: {{train: endless, val: 40}}, epoch: 50}}, neighbors: {{cutoff: 2.0}}}}"
STEPS = 20
NUMBERS = ("step", "epoch", "loss", "losses", "grad_norm", "graphs", "atoms", "edges", "samples_seen", "lr")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouds")
    (folder / "prep.yaml").write_text(
        f"source: {{{CLOUDS}, samples: {{train: 150, val: 40}}}}\n"
        f"out: {folder}/data\nshard_size: 64\nneighbors: {{cutoff: 2.0}}\n"
    )
    prepare(load_config(PrepConfig, folder / "prep.yaml"), World())
    return folder / "data"


def run_of(config, *overrides):
    """What a lone rank trains with."""
    loaded = load_config(TrainConfig, config, overrides)
    return build_run(loaded, open_collection(loaded.data), SingleProcess(), torch.device("cpu"))


def trained_on(folder) -> Counter:
    """How often each sample was trained on, over all ranks and lives."""
    records = [json.loads(line) for path in (folder / "samples").iterdir() for line in path.read_text().splitlines()]
    return Counter(sample for record in records for sample in record["samples"])


@pytest.mark.parametrize(("ranks", "block"), [(1, 1), (2, 1), (2, 16)])
def test_a_run_from_the_source_is_a_run_from_shards_to_the_last_bit(prepared, train, lines, ranks, block):
    options = ("steps=30", f"data.block={block}", "record_samples=true")
    shards = train("shards", ranks, f"data.train=[{prepared}]", *options)
    made = train("made", ranks, f"data.train=[{FINITE}]", *options)
    assert trained_on(made) == trained_on(shards)
    for one, other in zip(lines(made), lines(shards), strict=True):
        assert {name: one[name] for name in NUMBERS} == {name: other[name] for name in NUMBERS}
    assert len({line["loss"] for line in lines(made)}) == 30
    for one, other in zip(lines(made, "evaluations"), lines(shards, "evaluations"), strict=True):
        assert one["samples"] == 40
        assert (one["loss"], one["metrics"]) == (other["loss"], other["metrics"])


def test_an_endless_run_goes_on_with_new_samples_on_another_number_of_ranks(train, lines):
    options = (f"data.train=[{ENDLESS}]", "record_samples=true", "schedule.decay=constant")
    whole = train("whole", 1, *options)
    train("parts", 2, *options, "steps=9")
    train("parts", 3, *options, "steps=14")
    parts = train("parts", 1, *options)
    # Epochs of 50: seven steps of 7 graphs and one of 1.
    seen = [50 * (step // 8) + 7 * (step % 8) for step in range(1, STEPS + 1)]
    for run in (whole, parts):
        assert [line["samples_seen"] for line in lines(run)] == seen
        assert trained_on(run) == dict.fromkeys(range(seen[-1]), 1)
    assert [line["epoch"] for line in lines(whole)] == [line["epoch"] for line in lines(parts)]
    assert {line["ranks"] for line in lines(parts)} == {1, 2, 3}
    for one, other in zip(lines(whole), lines(parts), strict=True):
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-6)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-6)
    last, again = (lines(run, "evaluations")[-1] for run in (whole, parts))
    assert last["samples"] == again["samples"] == 40
    assert again["loss"] == pytest.approx(last["loss"], rel=1e-6)


def test_clouds_of_another_version_are_not_taken_for_data_prepared_anew(train, config, prepared, monkeypatch):
    """The same config, and a program that draws other clouds."""
    run = train("made", 1, f"data.train=[{ENDLESS}]", "steps=3")
    monkeypatch.setattr("matsci_hpc.loading.generated.VERSION", VERSION + 1)
    with pytest.raises(UserInputError, match=r"draws other clouds than .* began the run \(symmetry clouds of seed 9\)"):
        resume(run_of(config, f"run_dir={run}", f"data.train=[{ENDLESS}]"))
    run = train("shards", 1, f"data.train=[{prepared}]", "steps=3")
    resume(run_of(config, f"run_dir={run}", f"data.train=[{prepared}]"))
    anew = run_of(config, f"run_dir={run}", f"data.train=[{prepared}]")
    anew.state.data = ["0" * 32]
    with pytest.raises(UserInputError, match="the data sets were prepared anew since"):
        resume(anew)


@pytest.mark.slow
def test_a_run_says_what_it_was_trained_on(train, config, tmp_path):
    run = train("made", 1, f"data.train=[{ENDLESS}]", "steps=3")
    (described,) = json.loads(RunFolder(run).data.read_text())
    assert described["source"]["seed"] == 9
    assert described["source"]["samples"] == described["splits"] == {"train": "endless", "val": 40}
    assert described["cutoff_angstrom"] == 2.0
    report = run_ranks(1, "report", run)
    assert report.returncode == 0, report.stderr
    other = ENDLESS.replace("seed: 9", "seed: 8")
    refused = run_ranks(1, "train", config, f"run_dir={run}", f"data.train=[{other}]", "steps=4")
    assert refused.returncode == 2
    assert "another 'data'" in refused.stderr
    for command in ("plan", "check"):
        options = ["--ranks", "2"] if command == "plan" else ["--site", "local"]
        told = run_ranks(1, command, config, *options, f"run_dir={tmp_path / 'new'}", f"data.train=[{ENDLESS}]")
        assert told.returncode == 0, told.stdout + told.stderr
        assert "endless" in told.stdout
        assert "1,099,511,627,776" not in told.stdout


def test_a_source_that_cannot_be_used_is_refused_in_one_line(config, tmp_path):
    for entries, fault in (
        (f"[{ENDLESS.replace('cutoff: 2.0', 'cutoff: 1.2')}]", "does not surely reach over a whole cloud"),
        (f"[{FINITE.replace('Ci', 'Ck')}]", "Ck"),
    ):
        refused = run_ranks(1, "train", config, f"run_dir={tmp_path / 'run'}", f"data.train={entries}")
        assert refused.returncode == 2
        assert fault in refused.stderr
        assert refused.stderr.count("\n") == 1
