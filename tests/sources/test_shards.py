"""Data sets made from data sets."""

import json
import pickle
import shutil

import numpy as np
import pytest
from crystal_data import prepare_crystals
from preparation import data_set, run_on_ranks
from pydantic import ValidationError

from matsci_hpc import conversion
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.shards.verify import verify
from matsci_hpc.sources.merging import doubled_ids

CUTOFF = 4.0
SPLITS = {"train": 0.7, "val": 0.3}


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"), 60, CUTOFF)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    out = tmp_path_factory.mktemp("clouds") / "clouds"
    source = {"kind": "symmetry", "samples": {"train": 50, "hidden": 30}, "subgroups": True}
    prepare(PrepConfig(source=source, out=out, shard_size=16, neighbors={"cutoff": CUTOFF}), World())
    return out


def settings(path, out, *, shard_size=16, cutoff=CUTOFF, store=True, splits=SPLITS, **source):
    more = {} if source.get("keep_splits") else {"splits": splits}
    return PrepConfig(
        source={"kind": "shards", "path": path} | source,
        out=out,
        shard_size=shard_size,
        neighbors={"cutoff": cutoff, "store": store},
        **more,
    )


def made(path, out, **more):
    prepare(settings(path, out, **more), World())
    assert verify(out) == []
    return DataSet(out)


def samples(data):
    """Everything about each sample, by its id."""
    found = {}
    names = list(data.manifest.splits)
    for number in range(len(data.manifest.shards)):
        arrays = data.shard(number)
        for row, identifier in enumerate(arrays["structures/id"]):
            atoms = slice(*arrays["offsets/atoms"][row : row + 2])
            sample = {name: arrays[name][atoms].tolist() for name in ("atoms/atomic_number", "atoms/position")}
            if "offsets/edges" in arrays:
                edges = slice(*arrays["offsets/edges"][row : row + 2])
                sample["edges"] = arrays["edges/sender"][edges].tolist()
                sample["degree"] = arrays["atoms/degree"][atoms].tolist()
                sample["shift"] = arrays["edges/shift"][edges].tolist() if "edges/shift" in arrays else None
            sample["targets"] = {n: repr(arrays[f"targets/{n}"][row].tolist()) for n in data.manifest.targets}
            sample["split"] = names[arrays["structures/split"][row]]
            found[identifier.decode()] = sample
    return found


def shards(folder):
    """Shards and index, all but the fingerprint of the data set that they belong to."""
    own = DataSet(folder).manifest.fingerprint.encode()
    files = {name: data for name, data in data_set(folder).items() if name.startswith("shard-") or name == "index.h5"}
    assert all(data.count(own) == 1 for data in files.values())
    return {name: data.replace(own, b"-" * len(own)) for name, data in files.items()}


def no_search(*_):
    raise AssertionError("edges were stored")


@pytest.mark.parametrize("keep", [True, False])
def test_the_same_again_is_the_same_to_the_byte(crystals, tmp_path, monkeypatch, keep):
    monkeypatch.setattr(conversion, "radius_graph", no_search)
    again = made(crystals, tmp_path / "out", keep_splits=keep)
    assert shards(tmp_path / "out") == shards(crystals)
    assert again.manifest.statistics == DataSet(crystals).manifest.statistics


def test_clouds_again_are_the_same_to_the_byte(clouds, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "radius_graph", no_search)
    made(clouds, tmp_path / "out", keep_splits=True)
    assert shards(tmp_path / "out") == shards(clouds)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_cut_anew_and_back(crystals, tmp_path, size):
    cut = made(crystals, tmp_path / "cut", shard_size=size)
    assert len(cut.manifest.shards) == -(-60 // size)
    assert samples(cut) == samples(DataSet(crystals))
    made(tmp_path / "cut", tmp_path / "back")
    assert shards(tmp_path / "back") == shards(crystals)


@pytest.mark.mpi
def test_same_bytes_for_any_number_of_ranks(crystals, clouds, tmp_path):
    config = tmp_path / "prep.yaml"
    texts = []
    for ranks in (1, 3):
        out = tmp_path / f"out-{ranks}"
        chosen = settings([crystals, clouds], out, shard_size=9, targets=["gap", "family"])
        config.write_text(chosen.model_dump_json())
        done = run_on_ranks(ranks, ["-m", "matsci_hpc", "prep", config])
        assert done.returncode == 0, done.stderr
        texts.append(data_set(out))
    assert texts[0] == texts[1]


def test_edges_dropped_and_added_again(crystals, tmp_path):
    bare = made(crystals, tmp_path / "bare", store=False)
    assert not any(name.startswith("edges/") for name in bare.shard(0))
    assert bare.index.edges.tolist() == DataSet(crystals).index.edges.tolist()
    made(tmp_path / "bare", tmp_path / "again")
    assert shards(tmp_path / "again") == shards(crystals)


def test_another_cutoff_searches_anew(crystals, tmp_path):
    wide = made(crystals, tmp_path / "wide", cutoff=5.0)
    assert wide.index.edges.sum() > DataSet(crystals).index.edges.sum()
    made(tmp_path / "wide", tmp_path / "narrow")
    assert shards(tmp_path / "narrow") == shards(crystals)


def test_split_anew(crystals, tmp_path):
    data = made(crystals, tmp_path / "out", splits={"a": 0.5, "b": 0.5})
    assert list(data.manifest.splits) == ["a", "b"]
    assert 15 <= data.manifest.splits["a"] <= 45
    before = samples(DataSet(crystals))
    assert {k: v | {"split": ""} for k, v in samples(data).items()} == {k: v | {"split": ""} for k, v in before.items()}


def test_only_some_splits(clouds, tmp_path):
    data = made(clouds, tmp_path / "out", keep_splits=True, only_splits=["hidden"], shard_size=7)
    assert data.manifest.splits == {"hidden": 30}
    assert data.manifest.remarks == {"samples of other splits": 50}
    before = samples(DataSet(clouds))
    assert samples(data) == {name: each for name, each in before.items() if each["split"] == "hidden"}


def test_merged_with_targets_renamed(crystals, clouds, tmp_path):
    data = made([clouds, crystals], tmp_path / "out", targets={"label": "point_group", "gap": "gap"}, keep_splits=True)
    own = DataSet(crystals).manifest.splits
    assert data.manifest.splits == {"train": 50 + own["train"], "hidden": 30, "val": own["val"]}
    found, old = samples(data), samples(DataSet(crystals)) | samples(DataSet(clouds))
    assert list(found) == [*samples(DataSet(clouds)), *samples(DataSet(crystals))]
    for name, each in found.items():
        assert each["split"] == old[name]["split"]
        assert each["targets"] == {
            "label": old[name]["targets"].get("point_group", "-1"),
            "gap": old[name]["targets"].get("gap", "nan"),
        }
        assert each["edges"] == old[name]["edges"]


def test_of_equal_ids_the_first_stays(crystals, tmp_path):
    shutil.copytree(crystals, tmp_path / "copy")
    half = made(crystals, tmp_path / "half", only_splits=["val"], shard_size=5)
    out = tmp_path / "out"
    data = made([tmp_path / "half", tmp_path / "copy"], out, keep_splits=True)
    assert data.manifest.counts.inputs == len(half.index) + 60
    assert data.manifest.counts.samples == 60
    rejected = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [each["source"] for each in rejected] == [
        f"copy:{name}" for name in samples(DataSet(crystals)) if name in samples(half)
    ]
    assert {each["reason"] for each in rejected} == {"the id is taken by a sample of half"}


def test_ids_with_prefixes(crystals, tmp_path):
    shutil.copytree(crystals, tmp_path / "copy")
    data = made([crystals, tmp_path / "copy"], tmp_path / "out", prefix_ids=True)
    old = list(samples(DataSet(crystals)))
    assert list(samples(data)) == [f"{name}/{each}" for name in ("data", "copy") for each in old]
    assert data.manifest.counts.quarantined == 0


def edited(folder, copy, change):
    """A copy of a data set with another manifest."""
    shutil.copytree(folder, copy)
    path = copy / "dataset.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    del manifest["xxh3_128"]  # as by hand, with no checksum that could be wrong
    path.write_text(json.dumps(manifest))
    return copy


def test_targets_that_differ_are_named(crystals, tmp_path):
    other = edited(crystals, tmp_path / "other", lambda m: m["targets"]["gap"].update(unit="Ry"))
    with pytest.raises(UserInputError, match=r"'gap' differs: its unit is eV in .*/data and Ry in .*/other; leave it"):
        made([crystals, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made([crystals, other], tmp_path / "out", targets=["metal"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"targets": ["band_gap"]}, "no data set has a target 'band_gap'; there are: gap, metal, family"),
        ({"only_splits": ["test"]}, "no data set has a split 'test'; there are: train, val"),
    ],
)
def test_what_no_data_set_has(crystals, tmp_path, wrong, message):
    with pytest.raises(UserInputError, match=message):
        made(crystals, tmp_path / "out", **wrong)


def test_multilabels_cannot_be_absent(crystals, clouds, tmp_path):
    with pytest.raises(UserInputError, match=r"'subgroups' is missing in .*/data, and a multilabel target cannot be"):
        made([crystals, clouds], tmp_path / "out")


def test_a_folder_twice_or_two_of_one_name(crystals, tmp_path):
    with pytest.raises(UserInputError, match="is listed twice"):
        made([crystals, crystals.parent / "." / "data"], tmp_path / "out")
    shutil.copytree(crystals, tmp_path / "data")
    with pytest.raises(UserInputError, match="two data sets are called 'data'; rename a folder"):
        made([crystals, tmp_path / "data"], tmp_path / "out", prefix_ids=True)


def test_into_itself(crystals, tmp_path):
    for out in (crystals, crystals / "sub/x", crystals.parent / "x/../data"):
        with pytest.raises(ValidationError, match="is, or lies in, a data set that is read"):
            settings(crystals, out)
    link = tmp_path / "link"
    link.symlink_to(crystals)
    with pytest.raises(ValidationError, match="is, or lies in, a data set that is read"):
        settings(crystals, link / "sub")


def test_contradictions(crystals, tmp_path):
    config = settings(crystals, tmp_path / "out", keep_splits=True)
    assert PrepConfig(**config.model_dump()) == config
    with pytest.raises(ValidationError, match=r"splits and source\.keep_splits contradict each other"):
        PrepConfig(**config.model_dump() | {"splits": {"a": 1.0}})
    with pytest.raises(ValidationError, match=r"split_by and source\.keep_splits contradict each other"):
        PrepConfig(**config.model_dump() | {"split_by": "formula"})


def test_damage_is_not_passed_on(crystals, tmp_path):
    copy = shutil.copytree(crystals, tmp_path / "copy")
    path = copy / "shard-00001.h5"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserInputError, match=r"shard-00001.h5: the checksum differs; `matsci-hpc shards verify"):
        made(copy, tmp_path / "out")
    assert "dataset.json" not in data_set(tmp_path / "out")


def test_sources_travel_to_other_ranks(crystals, clouds):
    from matsci_hpc.sources.registry import open_source

    source = open_source(settings([crystals, clouds], "out", targets=["gap"], only_splits=["train"]), None)
    before = [each.id for each in source.read(0, len(source))]
    again = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own, a moment old
    assert [each.id for each in again.read(10, 60)] == before[10:60]


def test_another_data_set_is_another_input(crystals, clouds, tmp_path):
    from matsci_hpc.sources.registry import open_source

    def identity(path, **more):
        return open_source(settings(path, "out", **more), None).identity

    moved = shutil.copytree(crystals, tmp_path / "moved")
    assert identity(crystals) == identity(moved)
    assert identity(crystals) != identity(clouds)
    assert identity(crystals) != identity(crystals, prefix_ids=True)


@pytest.mark.parametrize("seed", range(20))
def test_doubled_ids_against_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    words = ["", "a", "b", "é" * 4, "a" * 8, "a" * 9, "a" * 16, "b" + "a" * 15, "x" * 40]
    names = [words[k].encode() for k in rng.integers(len(words), size=int(rng.integers(1, 40)))]
    cuts = np.sort(rng.integers(len(names), size=3))
    pieces = [np.array(piece, dtype=np.bytes_) for piece in np.split(np.array(names, dtype=object), cuts) if len(piece)]
    doubled, first = doubled_ids(pieces, len(names), lambda place: names[place])
    expected = [(n, names.index(name)) for n, name in enumerate(names) if names.index(name) != n]
    assert list(zip(doubled.tolist(), first.tolist(), strict=True)) == expected


FRAMES = """2
Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 stress="1 2 3 2 4 5 3 5 6" pbc="T T T"
Na 0 0 0 0.1 0.2 0.3
Cl 2 2 2 -0.1 -0.2 -0.3
1
Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 energy=-2.5 pbc="T T T"
Cu 0 0 0
"""
SHAPED = {
    "energy": {"key": "energy", "unit": "eV"},
    "force": {"key": "forces", "shape": [3], "per_atom": True},
    "stress": {"key": "stress", "shape": [3, 3]},
}


def test_vectors_and_values_of_every_atom_are_handed_on(tmp_path):
    (tmp_path / "a.xyz").write_text(FRAMES)
    source = {"kind": "extxyz", "path": tmp_path / "a.xyz", "targets": SHAPED}
    prepare(PrepConfig(source=source, out=tmp_path / "data", neighbors={"cutoff": CUTOFF}), World())
    again = made(tmp_path / "data", tmp_path / "again", shard_size=4096, keep_splits=True)
    assert shards(tmp_path / "again") == shards(tmp_path / "data")
    assert again.shard(0)["atoms/force"][:2].tolist() == np.float32([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]).tolist()
    for name in ("position", "degree", "atomic_number"):
        with pytest.raises(UserInputError, match=f"a target of every atom cannot be called '{name}'"):
            made(tmp_path / "data", tmp_path / name, targets={name: "force"})
