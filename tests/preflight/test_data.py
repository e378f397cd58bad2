import json

import pytest
from crystal_data import prepare_crystals
from labelled_frames import prepare_frames

from matsci_hpc.parallel.mpi import World
from matsci_hpc.preflight.data import data_findings, read_manifests, shard_findings
from matsci_hpc.prepare import prepare


def look(config, subject):
    manifests, missing = read_manifests(config, subject)
    return [*missing, *data_findings(config, manifests)]


@pytest.fixture(scope="session")
def other_cutoff(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("wide"), 12, cutoff=3.0)


def test_whole_data_set(train_config, subject, crystals):
    config = train_config()
    (finding,) = look(config, subject(config))
    assert finding.level == "ok"
    manifest = json.loads((crystals / "dataset.json").read_text())
    share = f"{manifest['splits']['train']} of {manifest['counts']['samples']} samples"
    assert finding.text == f"{crystals}: {share} in 'train', cutoff 4 angstrom"


def test_missing_data_set(train_config, subject, tmp_path):
    config = train_config(data={"train": [str(tmp_path / "nowhere")]})
    (finding,) = look(config, subject(config))
    assert (finding.level, finding.topic) == ("error", "data")
    assert "no data set here" in finding.text
    (finding,) = look(config, subject(config, awaited=[tmp_path / "nowhere"]))
    assert finding.level == "note"
    (finding,) = look(config, subject(config, after=True))
    assert finding.level == "warning"


def test_unfinished_data_set(train_config, subject, tmp_path):
    (tmp_path / "half/.work").mkdir(parents=True)
    config = train_config(data={"train": [str(tmp_path / "half")]})
    assert "preparation was not finished" in look(config, subject(config))[0].text


def test_different_cutoffs(train_config, subject, crystals, other_cutoff):
    config = train_config(data={"train": [str(crystals), str(other_cutoff)]})
    found = [each for each in look(config, subject(config)) if each.level == "error"]
    assert any("different cutoffs" in each.text and f"{other_cutoff} 3" in each.text for each in found)


def test_the_same_data_twice(train_config, subject, crystals, copy_of):
    config = train_config(data={"train": [str(crystals), str(copy_of(crystals))]})
    assert any("holds the same data as" in each.text for each in look(config, subject(config)))


def test_the_same_clouds_twice(train_config, prep_config, subject, tmp_path):
    """Of a source and a folder that is refused; two folders may hold different parts."""
    for out, samples in ("few", 60), ("more", 90):
        source = {"kind": "symmetry", "samples": samples, "seed": 8}
        prepare(prep_config(source=source, out=str(tmp_path / out)), World())
    made = {"source": {"kind": "symmetry", "samples": {"train": 40}, "seed": 8}, "neighbors": {"cutoff": 2}}
    config = train_config(data={"train": [made, str(tmp_path / "few")], "held_out": None})
    (error,) = (each for each in look(config, subject(config)) if each.level == "error")
    assert error.text.startswith(f"{tmp_path / 'few'} and symmetry clouds of seed 8 may hold the same samples")
    config = train_config(data={"train": [str(tmp_path / "more"), str(tmp_path / "few")]})
    assert [each.level for each in look(config, subject(config))] == ["warning", "ok", "ok"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"targets": {"gap": {}, "gop": {}}}, "targets.gop: no data set has it; they have: family, gap, metal"),
        ({"data": {"split": "trian"}}, "data.split: no sample is in split 'trian'"),
        ({"data": {"held_out": "test"}}, "data.held_out: no sample is in split 'test'"),
        ({"data": {"held_out": "train"}}, "data.held_out: 'train' is trained on"),
        ({"evaluate": {"final_split": "test"}}, "evaluate.final_split: no sample is in split 'test'"),
        ({"data": {"subset": {"samples": 1000}}}, "data.subset: 1,000 samples, and split 'train' has "),
    ],
)
def test_what_the_config_wants_of_the_data(changes, text, train_config, subject, crystals):
    data = {"train": [str(crystals)]} | changes.get("data", {})
    config = train_config(**changes | {"data": data})
    (finding,) = look(config, subject(config))
    assert finding.level == "error"
    assert text in finding.text


def test_derived_targets_are_looked_for_where_they_come_from(train_config, subject, crystals):
    config = train_config(data={"train": [str(crystals)]}, targets={"wide": {"of": "gap", "above": 2.0}})
    assert [each.level for each in look(config, subject(config))] == ["ok"]
    config = train_config(data={"train": [str(crystals)]}, targets={"wide": {"of": "family", "above": 2.0}})
    (finding,) = look(config, subject(config))
    assert finding.level == "error"
    assert "targets.wide.of: 'family' is no number of a structure here; these are: gap" in finding.text


def test_a_held_out_split_may_be_absent_by_will(train_config, subject, crystals):
    config = train_config(data={"train": [str(crystals)], "held_out": None})
    assert [each.level for each in look(config, subject(config))] == ["ok"]


def test_shards_are_missing_or_cut(train_config, subject, crystals, copy_of):
    folder = copy_of(crystals)
    config = train_config(data={"train": [str(folder)]})
    manifest = read_manifests(config, subject(config))[0][folder]
    assert not list(shard_findings(folder, manifest))
    first, second = (folder / each.file for each in manifest.shards[:2])
    with first.open("r+b") as file:
        file.truncate(100)
    (finding,) = shard_findings(folder, manifest)
    assert f"damaged: {first.name} (100 bytes instead of" in finding.text
    second.unlink()
    (finding,) = shard_findings(folder, manifest)
    assert "and 1 more" in finding.text


def test_targets_of_atoms(train_config, subject, tmp_path):
    data = {"train": [str(prepare_frames(tmp_path, 12, 8, 3.0))]}
    envelope = {"model": {"envelope": True}}

    def texts(targets):
        config = train_config(data=data, targets=targets, **envelope)
        return [each.text for each in look(config, subject(config)) if each.level == "error"]

    assert texts({}) == texts({"energy": {}, "force": {"gradient_of": "energy"}}) == texts({"force": {}}) == []
    (text,) = texts({"force": {"gradient_of": "stress"}, "stress": {}, "energy": {}})[:1]
    assert text.startswith("targets.stress: tensors, and vectors of a whole structure, are stored and read")
    (text,) = texts({"energy": {"gradient_of": "force"}, "force": {}})
    assert text.endswith("a gradient is a vector of every atom, and energy is not; leave gradient_of out")
