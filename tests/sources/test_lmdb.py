import pickle
import sys
import types

import lmdb
import numpy as np
import pandas as pd
import pytest
import torch
from ase.build import bulk
from pydantic import ValidationError
from pymatgen.core import Lattice
from pymatgen.core import Structure as Crystal
from shared_data import shared_data

from matsci_hpc.config.record_sources import LmdbSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.neighbors import radius_graph
from matsci_hpc.sources.lmdb_pickles import LmdbEntries
from matsci_hpc.structure import Rejected, Structure

CRYSTAL = Crystal(Lattice.orthorhombic(4, 5, 6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
ARRAYS = {
    "atomic_numbers": CRYSTAL.atomic_numbers,
    "pos": CRYSTAL.cart_coords.tolist(),
    "cell": CRYSTAL.lattice.matrix.tolist(),
}


def write(path, entries, *, subdir=False):
    environment = lmdb.open(str(path), subdir=subdir, map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(str(key).encode(), value if isinstance(value, bytes) else pickle.dumps(value))
    environment.close()
    return path


def open_source(path, **more):
    return LmdbEntries.from_config(Config(kind="lmdb", path=path, trust_pickle=True, **more), ("train",), path)


def read_all(source):
    return list(source.read(0, len(source)))


FORMS = {
    "pymatgen": {"structure": CRYSTAL},
    "document": {"structure": CRYSTAL.as_dict()},
    "arrays": ARRAYS,
    "tensors": {
        "atomic_numbers": torch.tensor(CRYSTAL.atomic_numbers),
        "pos": torch.tensor(CRYSTAL.cart_coords),
        "cell": torch.tensor(CRYSTAL.lattice.matrix)[None],
        "natoms": torch.tensor([2]),
    },
    "fractions": {
        "atomic_numbers": [11, 17],
        "frac_coords": CRYSTAL.frac_coords,
        "cell": [4.0, 5.0, 6.0, 90.0, 90.0, 90.0],
    },
    "columns of a CIF file": {
        "atomic_numbers": [11, 17],
        "cart_coords": CRYSTAL.frac_coords,  # as the toolkit calls them
        **{f"_cell_length_{axis}": str(length) for axis, length in zip("abc", (4, 5, 6), strict=True)},
        **{f"_cell_angle_{angle}": "90.0" for angle in ("alpha", "beta", "gamma")},
    },
    "list of sites": {
        "atomic_numbers": [11, 17],
        "cart_coords": CRYSTAL.frac_coords.tolist(),
        "cell": CRYSTAL.lattice.matrix.tolist(),
        "sites": ["Na @ 0 0 0", "Cl @ 0.5 0.5 0.5"],
    },
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_every_layout_gives_the_structure(content, tmp_path):
    (found,) = read_all(open_source(write(tmp_path / "a.lmdb", {0: content})))
    assert found.atomic_number.tolist() == [11, 17]
    np.testing.assert_allclose(found.position, CRYSTAL.cart_coords, atol=1e-6)
    np.testing.assert_allclose(found.cell, CRYSTAL.lattice.matrix, atol=1e-6)
    assert found.pbc.all()
    assert found.id == "a.lmdb#0"


def test_atoms_of_ase_and_coordinates_by_config(tmp_path):
    atoms = bulk("Cu")
    (found,) = read_all(open_source(write(tmp_path / "a.lmdb", {0: {"atoms": atoms}}), structure_key="atoms"))
    np.testing.assert_allclose(found.cell, atoms.cell.array, atol=1e-6)
    path = write(tmp_path / "b.lmdb", {0: ARRAYS | {"pos": CRYSTAL.frac_coords}})
    (found,) = read_all(open_source(path, coordinates="fractional"))
    np.testing.assert_allclose(found.position, CRYSTAL.cart_coords, atol=1e-6)


PERIODICITY = {
    "three flags": ({"pbc": torch.tensor([[True, True, False]])}, [True, True, False]),
    "one flag": ({"pbc": False}, [False] * 3),
    "none": ({}, [True] * 3),
    "a cell of zeros": ({"cell": np.zeros((1, 3, 3)), "pbc": [True] * 3}, [False] * 3),
}


@pytest.mark.parametrize(("more", "expected"), PERIODICITY.values(), ids=PERIODICITY)
def test_periodicity_is_what_the_entry_says(more, expected, tmp_path):
    (found,) = read_all(open_source(write(tmp_path / "a.lmdb", {0: ARRAYS | more})))
    assert found.pbc.tolist() == expected


def test_order_targets_and_other_keys(tmp_path):
    entries = {
        number: ARRAYS | {"targets": {"regression": {"gap": torch.tensor([number / 4])}}, "metal": number % 2 == 0}
        for number in range(12)
    }
    path = write(tmp_path / "db", entries | {"length": 12, "metadata": {"split": "x"}}, subdir=True)
    targets = {
        "gap": {"key": "targets.regression.gap", "unit": "eV"},
        "metal": {"key": "metal", "kind": "binary"},
        "force": {"key": "pos", "shape": [3], "per_atom": True},
    }
    source = pickle.loads(pickle.dumps(open_source(path, targets=targets)))  # noqa: S301 - as ranks get it
    assert [each.id for each in read_all(source)] == [f"db#{number}" for number in range(12)]
    assert [each.id for each in source.read(8, 11)] == ["db#8", "db#9", "db#10"]
    assert [each.targets["gap"] for each in source.read(8, 11)] == [2.0, 2.25, 2.5]
    assert [each.targets["metal"] for each in source.read(8, 11)] == [1, 0, 1]
    assert source.targets["force"].per_atom
    np.testing.assert_array_equal(next(source.read(0, 1)).targets["force"], CRYSTAL.cart_coords)


def test_gaps_between_keys_and_several_databases(tmp_path):
    for name, keys in {"a": (3, 10, 2), "b": (0, 1)}.items():
        write(tmp_path / f"{name}.lmdb", dict.fromkeys(keys, ARRAYS))
    source = open_source(tmp_path)
    assert [each.id for each in read_all(source)] == ["a.lmdb#2", "a.lmdb#3", "a.lmdb#10", "b.lmdb#0", "b.lmdb#1"]
    assert [each.id for each in source.read(2, 4)] == ["a.lmdb#10", "b.lmdb#0"]


class Evil:
    def __reduce__(self):
        return (open, (f"{Evil.path}", "w"))


def test_nothing_is_loaded_without_trust(tmp_path):
    Evil.path = tmp_path / "was here"
    path = write(tmp_path / "a.lmdb", {0: {"structure": Evil()}})
    with pytest.raises(ValidationError, match="trust_pickle: true"):
        Config(kind="lmdb", path=path)
    untrusted = Config.model_construct(kind="lmdb", path=path, trust_pickle=False)
    with pytest.raises(UserInputError, match="trust_pickle"):
        LmdbEntries.from_config(untrusted, ("train",), tmp_path)
    assert not Evil.path.exists()
    open_source(path)
    assert not Evil.path.exists()  # listing unpickles nothing either


@pytest.fixture
def missing_class(monkeypatch):
    """An object of a class that is gone when it is loaded."""
    module = types.ModuleType("vanished_package")
    module.Thing = type("Thing", (), {"__module__": "vanished_package"})
    monkeypatch.setitem(sys.modules, "vanished_package", module)
    thing = module.Thing()
    thing.value = 3
    data = pickle.dumps(ARRAYS | {"symmetry": thing}), pickle.dumps({"structure": thing})
    monkeypatch.delitem(sys.modules, "vanished_package")
    return data


def test_missing_classes_matter_where_they_are_needed(missing_class, tmp_path):
    path = write(tmp_path / "a.lmdb", dict(enumerate(missing_class)))
    beside, needed = read_all(open_source(path))
    assert isinstance(beside, Structure)
    reason = "needs the class vanished_package.Thing, which is not installed here"
    assert needed == Rejected("a.lmdb key 1", reason)
    with pytest.raises(
        UserInputError, match=r"anything under 'symmetry.number'.*needs the class vanished_package.Thing"
    ):
        open_source(path, targets={"group": {"key": "symmetry.number"}})


def test_bad_entries_are_rejected(tmp_path):
    entries = {
        0: b"no pickle",
        1: [1, 2],
        2: {"pos": [[0, 0, 0]]},
        3: ARRAYS | {"atomic_numbers": [11]},
        4: ARRAYS | {"atomic_numbers": [11, 700]},
        5: ARRAYS | {"pos": "here"},
        6: ARRAYS,
    }
    found = read_all(open_source(write(tmp_path / "a.lmdb", entries)))
    parts = [
        "not a readable pickle",
        "a list, not",
        "no atomic numbers",
        "1 atoms but",
        "no chemical",
        "pos is no array",
    ]
    for each, part in zip(found[:-1], parts, strict=True):
        assert part in each.reason
    assert isinstance(found[-1], Structure)


@pytest.mark.parametrize("subdir", [False, True])
def test_a_database_that_is_cut_off(tmp_path, subdir):
    path = write(tmp_path / "a.lmdb", dict.fromkeys(range(200), ARRAYS), subdir=subdir)
    file = path / "data.mdb" if subdir else path
    whole = file.read_bytes()
    for size in (len(whole) // 2, 9000):
        file.write_bytes(whole[:size])
        with pytest.raises(UserInputError, match=r"is cut off, [\d,]+ of [\d,]+ bytes"):
            open_source(path)


@pytest.fixture
def several(tmp_path):
    """A file with several databases of three entries each, called by numbers or by words."""

    def make(*names, **more):
        path = tmp_path / "several.lmdb"
        environment = lmdb.open(str(path), subdir=False, map_size=1 << 24, max_dbs=4)
        for each in names:
            with environment.begin(write=True, db=environment.open_db(each.encode())) as transaction:
                for number in range(3):
                    transaction.put(b"%d" % number, pickle.dumps(ARRAYS | {"gap": number / 2}))
        environment.close()
        return write(path, more)

    return make


@pytest.mark.parametrize("names", [("train", "val"), ("0", "1")])
def test_a_file_of_several_databases(several, names):
    path = several(*names)
    message = rf"several\.lmdb: holds several databases, called {names[0]}, {names[1]}; say by source\.database which"
    with pytest.raises(UserInputError, match=message):
        open_source(path)
    found = read_all(open_source(path, database=names[1], targets={"gap": {"key": "gap"}}))
    assert [each.targets["gap"] for each in found] == [0.0, 0.5, 1.0]
    with pytest.raises(UserInputError, match=r"source\.database: it holds no database called 'test'"):
        open_source(path, database="test")


def test_a_database_beside_the_entries_is_none_of_them(several):
    path = several("metadata", **{"0": ARRAYS, "1": b"48 bytes, as long as what stands for a database."})
    message = r"holds a database called metadata, and entries beside; say its name by source\.database, or '' for the"
    with pytest.raises(UserInputError, match=message):
        open_source(path)
    found, other = read_all(open_source(path, database=""))
    assert isinstance(found, Structure)
    assert "not a readable pickle" in other.reason
    assert len(read_all(open_source(path, database="metadata"))) == 3
    with pytest.raises(UserInputError, match="it holds no database called '0'"):
        open_source(path, database="0")


def test_a_file_of_one_named_database(several):
    with pytest.raises(UserInputError, match=r"holds a database called train; say by source\.database"):
        open_source(several("train"))


def test_keys_with_several_values(tmp_path):
    path = tmp_path / "a.lmdb"
    environment = lmdb.open(str(path), subdir=False, map_size=1 << 24, max_dbs=1)
    with environment.begin(write=True, db=environment.open_db(b"d", dupsort=True)) as transaction:
        for value in (b"x", b"y"):
            transaction.put(b"0", value, dupdata=True)
    environment.close()
    with pytest.raises(UserInputError, match=r"its keys may have several values each \(dupsort\); write it anew"):
        open_source(path, database="d")


@pytest.mark.parametrize(
    "content",
    [ARRAYS | {"pos": torch.zeros(2, 3, dtype=torch.bfloat16)}, {"structure": {"sites": 3}}, {"structure": object}],
    ids=["bfloat16", "no sites", "a class"],
)
def test_whatever_an_entry_holds_is_a_structure_or_a_reason(tmp_path, content):
    (found,) = read_all(open_source(write(tmp_path / "a.lmdb", {0: content})))
    assert isinstance(found, Rejected)
    assert found.reason


def test_wrong_paths(tmp_path):
    with pytest.raises(UserInputError, match="no such file"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UserInputError, match=r"holds no data\.mdb"):
        open_source(tmp_path)
    (tmp_path / "a.lmdb").write_text("not one")
    with pytest.raises(UserInputError, match="cannot be read as LMDB"):
        open_source(tmp_path / "a.lmdb")


@pytest.mark.parametrize(
    ("name", "count", "target"),
    [("materials_project", 200, "band_gap"), ("oqmd", 200, "band_gap"), ("carolina_db", 100, "energy")],
)
def test_real_databases(name, count, target):
    source = open_source(shared_data(f"lmdb/{name}.lmdb"), targets={"target": {"key": target}})
    assert len(source) == count
    found = read_all(source)
    for each in found:
        assert isinstance(each, Structure), each.reason
        assert each.fault() is None
        distance = closest(each)
        assert 0.6 < distance < 5, (each.id, distance)  # angstrom: atoms stand as far apart as atoms do
    assert sum("target" in each.targets for each in found) > 0.98 * count


def closest(structure):
    graph = radius_graph(structure, 5.0)
    receiver = np.repeat(np.arange(len(structure.atomic_number)), graph.degree)
    ends = structure.position[graph.sender] + graph.shift @ structure.cell
    return float(np.linalg.norm(ends - structure.position[receiver], axis=1).min())


def test_a_turned_bit_does_not_ask_for_gigabytes(tmp_path):
    """Python makes a table as long as the largest number of an object in a pickle: here 8 GB of it."""
    sound = pickle.dumps(ARRAYS, protocol=3)
    place = sound.index(b"q\x01")
    path = write(tmp_path / "a.lmdb", {0: sound[:place] + b"r\x00\x00\x00\x20" + sound[place + 2 :], 1: sound})
    rejected, fine = read_all(open_source(path))
    assert rejected.reason == f"not a readable pickle: object number 536870912 at byte {place} of {len(sound) + 3}"
    assert fine.fault() is None


def test_positions_by_columns(tmp_path):
    arrays = ARRAYS | {"pos": np.asfortranarray(np.array(ARRAYS["pos"]))}
    by_rows, by_columns = read_all(open_source(write(tmp_path / "a.lmdb", {0: ARRAYS, 1: arrays})))
    edges = [radius_graph(each, 6.0) for each in (by_rows, by_columns)]
    np.testing.assert_array_equal(edges[0].sender, edges[1].sender)


def test_reasons_say_no_places_in_memory(tmp_path):
    """They differ from process to process, and a data set must not."""
    path = write(tmp_path / "a.lmdb", {0: {"energy": object(), **ARRAYS}, 1: {"energy": 1.5, **ARRAYS}})
    rejected, _ = read_all(open_source(path, targets={"energy": {"key": "energy"}}))
    assert "object" in rejected.reason
    assert "0x" not in rejected.reason


def test_objects_that_cannot_say_what_they_hold(tmp_path):
    """A table of pandas without its state, and a class instead of an object."""
    entries = {0: b"\x80\x04cpandas\nDataFrame\n)\x81.", 1: pd.Series, 2: pd.Series(ARRAYS), 3: ARRAYS}
    broken, kind, series, plain = read_all(open_source(write(tmp_path / "a.lmdb", entries)))
    assert broken.reason.startswith("not a readable pickle: ")
    assert kind.reason == "a type, not a dictionary"
    np.testing.assert_array_equal(series.position, plain.position)
