import pickle
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from preparation import run_on_ranks

from matsci_hpc.config.record_sources import AseDbSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.ase_db import AseRows
from matsci_hpc.structure import Rejected, Structure

TARGETS = {
    "energy": {"key": "energy", "unit": "eV"},
    "force": {"key": "forces", "unit": "eV/angstrom", "shape": [3], "per_atom": True},
    "stress": {"key": "stress", "unit": "eV/angstrom^3", "shape": [6]},
    "gap": {"key": "gap", "unit": "eV"},
    "family": {"key": "family", "kind": "class"},
    "moduli": {"key": "elastic.moduli", "unit": "GPa", "shape": [2]},
}


def atoms(number):
    found = bulk(("Cu", "Fe", "Al")[number % 3]).repeat((1, 1, 1 + number % 2))
    found.rattle(0.05, seed=number)
    if number % 4:
        rng = np.random.default_rng(number)
        results = {"energy": float(number), "forces": rng.normal(size=(len(found), 3)), "stress": rng.normal(size=6)}
        found.calc = SinglePointCalculator(found, **results)
    return found


@pytest.fixture(params=["db", "json"])
def path(request, tmp_path):
    """Forty rows, of which three were removed again."""
    path = tmp_path / f"a.{request.param}"
    with connect(path) as database:
        for number in range(40):
            values = {"gap": number / 8} if number % 5 else {}
            data = {"elastic": {"moduli": [number, number + 1]}} if number % 2 else {}
            database.write(atoms(number), name=f"c-{number}", family=("a", "b")[number % 2], data=data, **values)
    connect(path).delete([1, 18, 40])
    return path


def open_source(path, staging, **more):
    return AseRows.from_config(Config(kind="ase_db", path=path, **more), ("train",), staging)


def test_rows_are_those_of_ase(path, tmp_path):
    source = open_source(path, tmp_path, targets=TARGETS, id_key="name")
    source = pickle.loads(pickle.dumps(source))  # noqa: S301 - as ranks get it
    kept = [number for number in range(40) if number not in {0, 17, 39}]
    assert len(source) == 37
    for number, each in zip(kept, source.read(0, 37), strict=True):
        made = atoms(number)
        assert each.fault(source.targets) is None
        assert each.id == f"c-{number}"
        np.testing.assert_array_equal(each.position, made.positions.astype("f4"))
        np.testing.assert_array_equal(each.cell, made.cell.array.astype("f4"))
        names = ["family"]
        names += ["energy", "force", "stress"] if number % 4 else []
        names += (["gap"] if number % 5 else []) + (["moduli"] if number % 2 else [])
        assert sorted(each.targets) == sorted(names)
        if number % 4:
            np.testing.assert_allclose(each.targets["force"], made.get_forces())
            np.testing.assert_allclose(each.targets["stress"], made.get_stress())
    assert [each.id for each in source.read(15, 18)] == ["c-16", "c-18", "c-19"]


def test_split_by_file(path, tmp_path):
    source = open_source({"val": path}, tmp_path)
    assert {each.split for each in source.read(0, 37)} == {"val"}
    assert next(source.read(0, 1)).id == f"{path.name}#2"


def test_wrong_files(tmp_path):
    (tmp_path / "text.db").write_text("hello")
    (tmp_path / "text.json").write_text("hello")
    for name in ("text.db", "text.json"):
        with pytest.raises(UserInputError, match="cannot be read as a database of ASE"):
            open_source(tmp_path / name, tmp_path)
    with pytest.raises(UserInputError, match="No such file"):
        open_source(tmp_path / "none.db", tmp_path)
    assert not (tmp_path / "none.db").exists()
    with connect(tmp_path / "a.db") as database:
        database.write(Atoms("X"))
        database.write(Atoms("H"), key_value_pairs={"gap": 1.0})
    first, second = open_source(tmp_path / "a.db", tmp_path).read(0, 2)
    assert first.reason == "an atom is no chemical element"
    assert second.atomic_number.tolist() == [1]
    with pytest.raises(UserInputError, match=r"no input has anything under 'x'.*gap"):
        open_source(tmp_path / "a.db", tmp_path, targets={"x": {"key": "x"}})


def test_a_database_of_others_is_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table mine (a)")
    before = path.read_bytes()
    (tmp_path / "empty.db").touch()
    for each in (path, tmp_path / "empty.db"):
        with pytest.raises(UserInputError, match="cannot be read as a database of ASE: it has no table of systems"):
            open_source(each, tmp_path)
    assert path.read_bytes() == before
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_methods_of_a_row_are_nothing_that_it_says(path, tmp_path):
    with pytest.raises(UserInputError, match="anything under 'toatoms'"):
        open_source(path, tmp_path, targets={"x": {"key": "toatoms", "kind": "class"}})
    with pytest.raises(UserInputError, match=r"anything under 'elastic\.keys'"):
        open_source(path, tmp_path, targets={"x": {"key": "elastic.keys", "kind": "class"}})
    assert next(open_source(path, tmp_path, id_key="toatoms").read(0, 1)).reason == "no id under toatoms"


def test_rows_with_damaged_entries_are_rejected(tmp_path):
    with connect(tmp_path / "a.db") as database:
        for number in range(3):
            database.write(bulk("Cu"), gap=float(number), data={"x": 1})
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("update systems set data = '{' where id = 1")
    source = open_source(tmp_path / "a.db", tmp_path, targets={"x": {"key": "x"}})
    assert [type(each) for each in source.read(0, 3)] == [Rejected, Structure, Structure]


@pytest.mark.mpi
def test_ranks_read_on_their_own(path, tmp_path):
    """Rank 1 reads while rank 0 waits for it: ASE must not make them read together."""
    program = tmp_path / "program.py"
    program.write_text(
        "from mpi4py import MPI\n"
        "from pathlib import Path\n"
        "from matsci_hpc.sources.ase_db import AseRows\n"
        "world = MPI.COMM_WORLD\n"
        f"source = world.bcast(AseRows([(None, Path({str(path)!r}))], 'a') if world.rank == 0 else None)\n"
        "found = [row.atoms() for row in source.read(5, 9)] if world.rank == 1 else None\n"
        "found = world.bcast(found, root=1)\n"
        "print(len(found))\n"
    )
    done = run_on_ranks(2, [program], timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "4"]


def test_a_row_that_a_damaged_database_lists_and_does_not_find(tmp_path):
    with connect(tmp_path / "a.db") as database:
        for _ in range(2):
            database.write(bulk("Cu"))
    rows = AseRows([(None, tmp_path / "a.db")], "a")
    (database,) = rows.databases
    lost, found = rows.read_keys(database, [3, 2])
    assert lost == Rejected("a.db row 3", "not a readable row: it is listed, and is not found by its number")
    assert not isinstance(found, Rejected)
