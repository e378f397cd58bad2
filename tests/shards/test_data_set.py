"""A finished data set: reading it, its manifest, and whether damage is found."""

import json
import pickle
import random
import shutil

import h5py
import numpy as np
import pytest
from contents import TARGETS, content
from crystals import ROCK_SALT, changed
from ranks import run_ranks

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.shards.describe import describe
from matsci_hpc.shards.index import index_rows, read_index, write_index
from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.shards.reader import DataSet, map_shard
from matsci_hpc.shards.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "cifs").mkdir()
    for number in range(6):
        length = f"length_a {5.64 + number % 2 / 10:.2f}"
        (folder / f"cifs/salt-{number}.cif").write_bytes(changed("length_a 5.64", length))
    (folder / "cifs/void.cif").write_text(ROCK_SALT.partition("Na1")[0])
    (folder / "table.csv").write_text("id,gap\nsalt-1,5.5\nsalt-4,\nsalt-5,6.5\n")
    source = {"kind": "cif", "path": folder / "cifs", "properties": folder / "table.csv"}
    config = PrepConfig(
        source=source | {"targets": {"gap": {"column": "gap", "unit": "eV"}}},
        out=folder / "out",
        shard_size=2,
        neighbors={"cutoff": 6.0},
    )
    prepare(config, World())
    return config.out


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def test_maps_hold_what_h5py_reads(made):
    data = DataSet(made)
    for number, record in enumerate(data.manifest.shards):
        arrays = data.shard(number)
        with h5py.File(made / record.file) as file:
            names = [dataset.name[1:] for group in file.values() for dataset in group.values()]
            assert sorted(arrays) == sorted(names)
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, file[name][()], strict=True)
                assert not array.flags.writeable
                assert name in data.manifest.fields


def test_data_sets_travel_to_other_processes(made):
    data = DataSet(made)
    data.shard(0)
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own, a moment old
    assert len(data.pool) == 1
    assert len(again.pool) == 0
    assert again.index.by_split.tolist() == data.index.by_split.tolist()
    np.testing.assert_array_equal(again.shard(0)["atoms/position"], data.shard(0)["atoms/position"])


def test_index_agrees_with_the_shards(made):
    data = DataSet(made)
    index = data.index
    assert len(index) == data.manifest.counts.samples == 6
    for shard, row, atoms, edges, split, present in zip(
        index.shard, index.row, index.atoms, index.edges, index.split, index.present, strict=True
    ):
        arrays = data.shard(int(shard))
        assert atoms == np.diff(arrays["offsets/atoms"])[row]
        assert edges == np.diff(arrays["offsets/edges"])[row]
        assert edges == arrays["atoms/degree"][slice(*arrays["offsets/atoms"][row : row + 2])].sum()
        assert split == arrays["structures/split"][row]
        assert present == int(not np.isnan(arrays["targets/gap"][row]))


@pytest.mark.parametrize(
    ("count", "dtype"),
    [(0, "uint8"), (1, "uint8"), (8, "uint8"), (9, "uint16"), (33, "uint64"), (64, "uint64")],
)
def test_presence_bits(count, dtype):
    arrays = content([0]).arrays
    targets = {f"t{n}": TARGETS["gap"] for n in range(count)}
    values = {f"targets/t{n}": np.array([np.nan if n % 3 else 1.0], dtype=np.float32) for n in range(count)}
    present = index_rows(arrays | values, targets)["present"]
    assert present.dtype == dtype
    assert int(present[0]) == sum(1 << n for n in range(0, count, 3))


def test_index_of_several_shards(tmp_path):
    rows = [index_rows(content(numbers).arrays, TARGETS) for numbers in ([0], [1, 2, 3], [4, 5])]
    write_index(tmp_path / "index.h5", rows, 6)
    index = read_index(tmp_path)
    assert index.shard.tolist() == [0, 1, 1, 1, 2, 2]
    assert index.row.tolist() == [0, 0, 1, 2, 0, 1]
    assert index.split.tolist() == [0, 1, 2, 0, 1, 2]
    assert index.by_split.tolist() == [0, 3, 1, 4, 2, 5]
    assert not index.by_split.flags.writeable


def test_a_whole_data_set_has_no_faults(made):
    assert verify(made) == []
    text = describe(made)
    assert "6 samples in 3 shards" in text
    assert "7 = 6 samples + 1 rejected" in text
    assert "gap (regression): 2 labelled, mean 6 eV, std 0.5, range 5.5 to 6.5" in text
    assert "void.cif: not a readable CIF: a loop without rows" in text


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def swap(first, second):
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


DAMAGE = {
    "flipped bit": (lambda d: flip(d / "shard-00001.h5", -20), ["shard-00001.h5: the checksum differs"]),
    "truncated": (lambda d: (d / "shard-00000.h5").write_bytes(b"HDF"), ["shard-00000.h5: truncated: 3 bytes, "]),
    "missing": (lambda d: (d / "shard-00002.h5").unlink(), ["shard-00002.h5: missing"]),
    "swapped": (
        lambda d: swap(d / "shard-00000.h5", d / "shard-00001.h5"),
        [
            "shard-00000.h5: is shard-00001.h5 of this data set, in the wrong place",
            "shard-00001.h5: is shard-00000.h5 of this data set, in the wrong place",
        ],
    ),
    "foreign": (
        lambda d: shutil.copy(d / "shard-00000.h5", d / "shard-00007.h5"),
        ["shard-00007.h5: a shard that the manifest does not know"],
    ),
    "index": (lambda d: flip(d / "index.h5", 900), ["index.h5: the checksum differs"]),
    "quarantine": (lambda d: (d / "quarantine.jsonl").write_text(""), ["quarantine.jsonl: truncated: 0 bytes, "]),
    "folder in place of a shard": (
        lambda d: ((d / "shard-00000.h5").unlink(), (d / "shard-00000.h5").mkdir()),
        ["shard-00000.h5: "],
    ),
    "two at once": (
        lambda d: (flip(d / "shard-00000.h5", 70), (d / "index.h5").unlink()),
        ["shard-00000.h5: the checksum differs", "index.h5: missing"],
    ),
}


@pytest.mark.parametrize(("damage", "faults"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(copy, damage, faults):
    damage(copy)
    found = verify(copy)
    assert len(found) == len(faults)
    for line, fault in zip(found, faults, strict=True):
        assert line.startswith(f"{copy}/{fault}")


def test_files_of_another_data_set_are_known(made, copy, tmp_path):
    other = PrepConfig(
        source={"kind": "cif", "path": made.parent / "cifs"},
        out=tmp_path / "other",
        shard_size=2,
        neighbors={"cutoff": 5},
    )
    prepare(other, World())
    for name in ("shard-00001.h5", "index.h5"):
        shutil.copy(other.out / name, copy / name)
    assert verify(copy) == [f"{copy / name}: is a file of another data set" for name in ("shard-00001.h5", "index.h5")]


def test_a_reader_refuses_a_shard_in_the_place_of_another(copy):
    swap(copy / "shard-00000.h5", copy / "shard-00001.h5")
    manifest = read_manifest(copy)
    first, second, _ = manifest.shards
    for record, size in ((first, second.bytes), (second, first.bytes)):
        with pytest.raises(MachineError, match=r"another shard of this data set; `matsci-hpc shards verify"):
            map_shard(copy, record.model_copy(update={"bytes": size}), manifest.fingerprint)


def test_a_reader_refuses_a_shard_of_another_data_set(made, copy, tmp_path):
    """Of the same number and size: nothing else would tell."""
    config = json.loads((made / "provenance.json").read_text())["config"]
    other = PrepConfig.model_validate(config | {"out": tmp_path / "other", "splits": {"train": 0.5, "val": 0.5}})
    prepare(other, World())
    name = "shard-00001.h5"
    shutil.copy(other.out / name, copy / name)
    assert (copy / name).stat().st_size == read_manifest(copy).shards[1].bytes
    data = DataSet(copy)
    data.shard(0)
    with pytest.raises(MachineError, match=rf"{name}: is a file of another data set; `matsci-hpc shards verify"):
        data.shard(1)
    assert verify(copy) == [f"{copy / name}: is a file of another data set"]


def test_a_shard_from_before_there_was_a_fingerprint_is_read(copy):
    path = copy / "shard-00001.h5"
    with h5py.File(path, "r+") as file:
        del file.attrs["fingerprint"]
    manifest = read_manifest(copy)
    record = manifest.shards[1].model_copy(update={"bytes": path.stat().st_size})
    assert len(map_shard(copy, record, manifest.fingerprint)["structures/id"]) == record.samples


def test_a_thousand_random_flips_are_found(copy):
    chance = random.Random(7)
    paths = [path for path in sorted(copy.iterdir()) if path.name != "provenance.json"]
    clean = {path: path.read_bytes() for path in paths}
    for turn in range(1000):
        path = paths[turn % len(paths)]
        damaged = bytearray(clean[path])
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            (found,) = verify(copy)
            assert found.startswith(f"{path}: the checksum differs: damaged")
        except UserInputError as error:
            assert path.name == "dataset.json"
            assert str(path) in str(error)  # noqa: PT017 - either way it is found
        path.write_bytes(clean[path])
    assert verify(copy) == []


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_verify_together(copy, ranks):
    done = run_ranks(ranks, "shards", "verify", copy)
    assert (done.returncode, done.stdout.strip()) == (0, f"{copy}: every checksum holds"), done.stderr
    flip(copy / "shard-00001.h5", -20)
    (copy / "index.h5").unlink()
    alone, together = run_ranks(1, "shards", "verify", copy), run_ranks(ranks, "shards", "verify", copy)
    assert alone.returncode == together.returncode == 2
    ours = [line for line in together.stderr.splitlines() if line.startswith("matsci-hpc:")]
    assert ours == alone.stderr.splitlines()
    assert len(ours) == 2


def test_every_bit_counts(copy):
    path = copy / "shard-00001.h5"
    for place in range(0, path.stat().st_size, 397):
        flip(path, place)
        assert len(verify(copy)) == 1
        flip(path, place)
    assert verify(copy) == []


def test_a_damaged_shard_is_read_or_refused_but_never_a_crash(copy):
    path = copy / "shard-00001.h5"
    manifest, refused = read_manifest(copy), 0
    record = manifest.shards[1]
    for place in range(0, path.stat().st_size, 41):
        flip(path, place)
        try:
            map_shard(copy, record, manifest.fingerprint)
        except MachineError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017 - reading undamaged values is right as well
        flip(path, place)
    assert refused


MANIFESTS = {
    "not JSON": (lambda text: text[:100], r"dataset.json: damaged, not JSON"),
    "empty": (lambda _: "", r"damaged, not JSON"),
    "binary": (lambda _: b"\xff\xfe\x00", r"damaged, not JSON"),
    "a list": (lambda _: "[1]", r"format version None, this program reads version 2; prepare the data again"),
    "later version": (lambda text: text.replace('"format_version": 2', '"format_version": 3'), r"format version 3"),
    "another format": (lambda text: text.replace("matsci-hpc data set", "zarr"), r"damaged: format: "),
    "a key too few": (lambda text: json.dumps({**json.loads(text), "shards": None}), r"damaged: shards: "),
    "a key too many": (lambda text: json.dumps({**json.loads(text), "extra": 1}), r"damaged: extra: "),
}


@pytest.mark.parametrize(("damage", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_damaged_manifests(copy, damage, message):
    path = copy / "dataset.json"
    changed_text = damage(path.read_text())
    path.write_bytes(changed_text if isinstance(changed_text, bytes) else changed_text.encode())
    for read in (read_manifest, verify, describe, DataSet):
        with pytest.raises(UserInputError, match=message) as caught:
            read(copy)
        assert "\n" not in str(caught.value)


def test_no_manifest(tmp_path):
    with pytest.raises(UserInputError, match="no data set here"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / ".work").mkdir()
    with pytest.raises(UserInputError, match="was not finished; run the same"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("data", [b"", b"HDF", None])
def test_damaged_index(copy, data):
    path = copy / "index.h5"
    path.write_bytes(path.read_bytes()[:-3000] if data is None else data)
    with pytest.raises(UserInputError, match=r"index.h5: the checksum differs; `matsci-hpc shards verify"):
        DataSet(copy)


def test_provenance_and_quarantine_may_be_lost(copy):
    (copy / "provenance.json").write_text("[]")
    (copy / "quarantine.jsonl").write_text('{"a": 1}\n')
    assert "is missing or damaged" in describe(copy)
