import numpy as np
import pytest
from crystals import random_crystal
from pymatgen.core import Lattice
from pymatgen.core import Structure as Crystal
from pymatgen.io.vasp.inputs import Poscar

from matsci_hpc.config.sources import PoscarSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.file_source import UnusableFileError
from matsci_hpc.sources.poscar import PoscarSource, parse_poscar
from matsci_hpc.structure import Rejected, Structure

SALT = """salt
{scale}
5.64 0 0
0 5.64 0
0 0 5.64
Na Cl
1 1
{mode}
0 0 0
{second}
"""
DIRECT = SALT.format(scale=1.0, mode="Direct", second="0.5 0.5 0.5")


def read_all(folder, staging, **more):
    source = PoscarSource.from_config(Config(kind="poscar", path=folder, **more), ("train", "val"), staging)
    return list(source.read(0, len(source)))


@pytest.mark.parametrize("cartesian", [False, True])
def test_structures_are_those_that_pymatgen_wrote(tmp_path, cartesian):
    crystals = {f"c{number:02d}": random_crystal(number).get_sorted_structure() for number in range(30)}
    for name, crystal in crystals.items():
        moving = [[True, False, True]] * len(crystal) if name.endswith("3") else None
        text = Poscar(crystal, selective_dynamics=moving).get_str(direct=not cartesian, significant_figures=16)
        (tmp_path / f"{name}.vasp").write_text(text)
    found = read_all(tmp_path, tmp_path)
    assert [each.id for each in found] == list(crystals)
    for each, crystal in zip(found, crystals.values(), strict=True):
        assert isinstance(each, Structure)
        assert each.fault() is None
        assert each.pbc.all()
        assert each.atomic_number.tolist() == [site.specie.Z for site in crystal]
        np.testing.assert_allclose(each.position, crystal.cart_coords, atol=1e-5)
        np.testing.assert_allclose(each.cell, crystal.lattice.matrix, atol=1e-5)


WAYS = {
    "direct": DIRECT,
    "Cartesian": SALT.format(scale=1.0, mode="Cartesian", second="2.82 2.82 2.82"),
    "scaled": SALT.format(scale=0.5, mode="direct", second="0.5 0.5 0.5").replace("5.64", "11.28"),
    "scaled Cartesian": SALT.format(scale=0.5, mode="cart", second="5.64 5.64 5.64")
    .replace("5.64 0 0", "11.28 0 0")
    .replace("0 5.64 0", "0 11.28 0")
    .replace("0 0 5.64\n", "0 0 11.28\n"),
    "volume": SALT.format(scale=-(5.64**3), mode="Direct", second="0.5 0.5 0.5")
    .replace("5.64 0 0", "1 0 0")
    .replace("0 5.64 0", "0 1 0")
    .replace("0 0 5.64", "0 0 1"),
    "selective": SALT.format(scale=1.0, mode="Selective dynamics\nDirect", second="0.5 0.5 0.5 F F T").replace(
        "\n0 0 0\n", "\n0 0 0 T T T\n"
    ),
    "line ends of Windows": DIRECT.replace("\n", "\r\n"),
    "names of potentials": DIRECT.replace("Na Cl", "Na_pv Cl"),
    "names and hashes of potentials": DIRECT.replace("Na Cl", "Na_pv/f474ac0d Cl/79d9987ad87"),
    "symbols in two lines": DIRECT.replace("Na Cl\n1 1\n", "Na\nCl\n1\n1\n"),
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_ways_to_write_one_structure(text):
    number, position, cell = parse_poscar(text.encode())
    assert number.tolist() == [11, 17]
    np.testing.assert_allclose(position, [[0, 0, 0], [2.82] * 3], atol=1e-5)
    np.testing.assert_allclose(cell, 5.64 * np.eye(3), atol=1e-5)


def test_names(tmp_path):
    for name in ("a/POSCAR", "b/c/contcar", "POSCAR_salt", "x.VASP", "y.poscar", "notes.txt", "POSCAR"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(DIRECT)
    assert [each.id for each in read_all(tmp_path, tmp_path)] == ["POSCAR", "POSCAR_salt", "a", "b/c", "x", "y"]


@pytest.mark.parametrize(("first", "second"), [("CONTCAR", "POSCAR"), ("contcar", "POSCAR"), ("CONTCAR", "poscar")])
@pytest.mark.parametrize("prefer", [None, "contcar", "poscar"])
def test_two_files_of_one_folder_are_one_structure(tmp_path, prefer, first, second):
    names = [f"{folder}/{name}" for folder in ("a", "b") for name in (first, second)]
    for name in [*names, "c/CONTCAR", "d/POSCAR", "x.vasp", "x.poscar"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(DIRECT)
    config = Config(kind="poscar", path=tmp_path, **({} if prefer is None else {"prefer": prefer}))
    source = PoscarSource.from_config(config, ("train",), tmp_path)
    found = {each.source: each for each in source.read(0, len(source))}
    wanted, other = (second, first) if prefer == "poscar" else (first, second)
    for folder in ("a", "b"):
        assert found[f"{folder}/{wanted}"].id == folder
        assert found[f"{folder}/{other}"].reason == f"the id is taken by {folder}/{wanted}"
    assert isinstance(found["c/CONTCAR"], Structure)
    assert isinstance(found["d/POSCAR"], Structure)
    assert found["x.vasp"] == Rejected("x.vasp", "the id is taken by x.poscar")
    assert source.remarks == {f"folders with POSCAR and CONTCAR, whose {wanted.upper()} was taken": 2}


def test_properties_by_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "POSCAR").write_text(DIRECT)
    table = tmp_path / "table.csv"
    table.write_text("id,gap\na,1.5\nb,\n")
    more = {"properties": table, "targets": {"gap": {"column": "gap"}}}
    assert [each.targets for each in read_all(tmp_path, tmp_path, **more)] == [{"gap": 1.5}, {}]
    table.write_text("id,gap\nPOSCAR,1.5\n")
    with pytest.raises(UserInputError, match="no id in column 'id' is the name of a POSCAR file"):
        read_all(tmp_path, tmp_path, **more)


BAD = {
    "VASP 4": (DIRECT.replace("Na Cl\n", ""), "line 6 names no elements, as in files of VASP 4"),
    "cut": (DIRECT[:-12], "not a readable POSCAR"),
    "empty": ("", "ends after 0 lines"),
    "no element": (DIRECT.replace("Na Cl", "Qq Cl"), "not a readable POSCAR"),
    "no number": (DIRECT.replace("5.64 0 0", "five 0 0"), "not a readable POSCAR"),
    "a billion atoms": (DIRECT.replace("\n1 1\n", "\n1 1000000000\n"), "it has 10 lines, too few for its atoms"),
    "atoms beyond counting": (DIRECT.replace("\n1 1\n", f"\n1 {'9' * 5000}\n"), "too few for its atoms"),
    "a billion atoms after more symbols": (
        DIRECT.replace("Na Cl\n1 1\n", "Na\nCl\n1\n1000000000\n"),
        "too few for its atoms",
    ),
    "almost a list of elements": (DIRECT.replace("Na Cl", "A_" * 60 + "!"), "line 6 is no list of elements"),
    "prose": ("my structure\n" * 12, "line 6 is no list of elements"),
}


@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD)
def test_reasons(text, reason):
    with pytest.raises(UnusableFileError, match=reason):
        parse_poscar(text.encode())


def test_every_way_of_breaking_off_gives_a_reason_or_a_sound_structure():
    data = Poscar(Crystal(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])).get_str().encode()
    for length in range(0, len(data) - 25, 3):
        try:
            number, position, _ = parse_poscar(data[:length])
        except UnusableFileError:
            continue
        assert len(number) == len(position) == 2


@pytest.mark.parametrize("prefer", ["contcar", "poscar"])
def test_two_files_of_the_folder_itself_are_one_structure(tmp_path, prefer):
    for name in ("CONTCAR", "POSCAR", "POSCAR.vasp"):  # the last would have the id of the second
        (tmp_path / name).write_text(DIRECT)
    source = PoscarSource.from_config(Config(kind="poscar", path=tmp_path, prefer=prefer), ("train",), tmp_path)
    found = {each.source: each for each in source.read(0, len(source))}
    other = {"contcar": "POSCAR", "poscar": "CONTCAR"}[prefer]
    assert found[prefer.upper()].id == prefer.upper()
    assert found[other].reason == f"the id is taken by {prefer.upper()}"
    ids = [each.id for each in found.values() if isinstance(each, Structure)]
    assert len(set(ids)) == len(ids)
    assert source.remarks == {f"folders with POSCAR and CONTCAR, whose {prefer.upper()} was taken": 1}


def test_a_folder_whose_contcar_is_empty_is_not_counted(tmp_path):
    for name, text in {"a/CONTCAR": "", "a/POSCAR": DIRECT, "b/CONTCAR": DIRECT, "b/POSCAR": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    source = PoscarSource.from_config(Config(kind="poscar", path=tmp_path), ("train",), tmp_path)
    assert list(source.remarks.values()) == [1]
