"""Inputs to mutate, for every kind of source: seeds, and how a mutated one becomes a file that a config names.

Seeds are cut from the real data sets where these are there; made crystals stand beside them, so that no kind is
without. Of LMDB the entries are mutated: its library trusts the pages of the file that it maps, and damaged ones kill.
"""

import gzip
import io
import itertools
import json
import pickle
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import ROCK_SALT, random_crystal
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp.inputs import Poscar
from shared_data import SHARED

TABLE = b"""id,gap,metal,family,split
a,1.5,true,oxide,train
b,-0.25,0,"alloy, binary",test
c,,NaN,,train
"""
TARGETS = {name: {"column": name, "kind": kind} for name, kind in [("metal", "binary"), ("family", "class")]}
TARGETS["gap"] = {"column": "gap", "unit": "eV"}
RESULTS = {
    "energy": {"key": "energy", "unit": "eV"},
    "force": {"key": "forces", "unit": "eV/angstrom", "shape": [3], "per_atom": True},
    "stress": {"key": "stress", "unit": "eV/angstrom^3", "shape": [3, 3]},
}
PROPERTIES = {
    "gap": {"key": "band_gap", "unit": "eV"},
    "metal": {"key": "is_metal", "kind": "binary"},
    "system": {"key": "symmetry.crystal_system", "kind": "class"},
}


@dataclass(frozen=True)
class Kind:
    """How a kind of input is fuzzed.

    Attributes:
        seeds: makes the sound inputs.
        place: puts a mutated one into a folder and gives the `source` section that reads it.
        inputs: how many inputs there are whatever the damage, None where the damage may hide some.
    """

    seeds: Callable[[], list[bytes]]
    place: Callable[[bytes, Path], dict[str, Any]]
    inputs: int | None = None


def _cif_seeds() -> list[bytes]:
    texts = [ROCK_SALT.encode()]
    texts += [
        str(CifWriter(random_crystal(number), symprec=symprec)).encode()
        for number in (4, 9)
        for symprec in (None, 0.01)
    ]
    return texts + _real_cifs(15)


def _real_cifs(count: int) -> list[bytes]:
    path, texts = SHARED / "3dsc_cifs.tar.gz", []
    if path.is_file():
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".cif") and member.size < 5000:
                    texts.append(archive.extractfile(member).read())
                if len(texts) == count:
                    break
    return texts


def _snapshots() -> list[Atoms]:
    """Made crystals with energy, forces and stress, and what the data sets of ASE frames begin with."""
    found = []
    for number in range(1, 9):
        atoms = AseAtomsAdaptor.get_atoms(random_crystal(number), msonable=False)
        forces = atoms.get_scaled_positions() - 0.5
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * number, forces=forces, stress=forces[0].repeat(2))
        found.append(atoms)
    for name in ("mptrj", "alexandria"):
        if (path := SHARED / f"extxyz/{name}-random-1k.xyz").is_file():
            found += [atoms for atoms in ase.io.read(path, index=":40") if len(atoms) <= 12][:6]
    return found


def _extxyz_seeds() -> list[bytes]:
    """Three frames each: written by ASE, and lines of the real files as they are."""
    texts = []
    for three in _threes(_snapshots()):
        ase.io.write(text := io.StringIO(), three, format="extxyz")
        texts.append(text.getvalue().encode())
    for name in ("extxyz/mptrj-random-1k.xyz", "extxyz/alexandria-random-1k.xyz", "mp_megnet2018.extxyz.gz"):
        if (path := SHARED / name).is_file():
            with (gzip.open if name.endswith(".gz") else open)(path, "rb") as file:
                frames = [_frame(file) for _ in range(40)]
            small = [frame for frame in frames if len(frame) < 2000]
            texts += [b"".join(three) for three in _threes(small[:9])]
    return texts


def _threes(values: list[Any]) -> list[list[Any]]:
    return [values[start : start + 3] for start in range(0, len(values), 3)]


def _frame(file: Any) -> bytes:
    head = file.readline()
    return head + b"".join(file.readline() for _ in range(int(head) + 1))


def _csv_seeds() -> list[bytes]:
    """Three rows each, of the real tables and of one that is made here."""
    rows = [f'salt-{number},"{ROCK_SALT}",{number / 2},oxide,train\r\n' for number in range(3)]
    texts = [("material_id,cif,gap,family,split\r\n" + "".join(rows)).encode()]
    for name in ("perov_5/val.csv", "carbon_24/val.csv"):
        if (path := SHARED / name).is_file():
            header, _, body = path.read_text()[:60_000].partition("\n")
            ends = [place for place, _ in enumerate(body) if body.startswith('\n",', place)]
            cuts = [0, *(body.index("\n", end + 1) + 1 for end in ends[2:12:3])]
            texts += [f"{header}\n{body[start:stop]}".encode() for start, stop in itertools.pairwise(cuts)]
    return texts


def _json_seeds() -> list[bytes]:
    """Lists, lines, one document, with structures of pymatgen and the entries that the Materials Project gives."""
    documents = []
    for number in (1, 3, 4, 6, 7, 9):
        entries = {"material_id": f"mp-{number}", "structure": random_crystal(number).as_dict(), "is_metal": True}
        documents.append(entries | {"band_gap": number / 8, "symmetry": {"crystal_system": "Cubic"}})
    documents[0]["title"] = 'Müller "quoted" ]}'
    lines = "\n".join(json.dumps(each) for each in documents[:3])
    forms = [json.dumps(documents[:3]), lines, json.dumps(documents[3:], indent=1), json.dumps(documents[1])]
    return [text.encode() for text in forms]


def _poscar_seeds() -> list[bytes]:
    crystals = [random_crystal(number) for number in (1, 3, 4, 5, 6, 9)]
    texts = [Poscar(each, sort_structure=True).get_str().encode() for each in crystals]
    for each in _snapshots()[8:]:
        for direct in (True, False):
            ase.io.write(text := io.StringIO(), each, format="vasp", direct=direct)
            texts.append(text.getvalue().encode())
    return texts


def _database_seeds(suffix: str, rows: int) -> list[bytes]:
    found, snapshots = [], _snapshots()
    for start in (0, 8) if len(snapshots) > 8 else (0,):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a{suffix}"
            with ase.db.connect(path) as database:
                for number, atoms in enumerate(snapshots[start : start + rows]):
                    database.write(atoms, band_gap=number / 4, is_metal=bool(number % 2), data={"tensor": [1.0, 2.0]})
            if suffix == ".db":
                with closing(sqlite3.connect(path)) as connection:
                    connection.execute("vacuum")
            found.append(path.read_bytes())
    return found


def _pickle_seeds() -> list[bytes]:
    """Entries of real databases, and the ways in which others keep a structure."""
    import lmdb

    crystal = random_crystal(4)
    arrays = {"atomic_numbers": crystal.atomic_numbers, "pos": crystal.cart_coords, "cell": crystal.lattice.matrix}
    entries = [arrays, {"structure": crystal.as_dict()}, {"structure": crystal}, {"structure": _snapshots()[3]}]
    found = [pickle.dumps(each | {"energy": -1.5}) for each in entries]
    for name in ("materials_project", "oqmd", "carolina_db"):
        if (path := SHARED / f"lmdb/{name}.lmdb").exists():
            with (
                lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False) as opened,
                opened.begin() as reader,
            ):
                values = [reader.get(b"%d" % number) for number in range(60)]
            found += [value for value in values if value is not None and len(value) < 30_000][:4]
    return found


def _cif_file(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "a.cif").write_bytes(data)
    return {"kind": "cif", "path": folder}


def _properties(data: bytes, folder: Path) -> dict[str, Any]:
    for name in "abc":
        (folder / f"{name}.cif").write_text(ROCK_SALT)
    (folder / "table.csv").write_bytes(data)
    source = {"kind": "cif", "path": folder, "properties": folder / "table.csv"}
    return source | {"targets": TARGETS, "split_column": "split"}


def _extxyz_file(name: str) -> Callable[[bytes, Path], dict[str, Any]]:
    def place(data: bytes, folder: Path) -> dict[str, Any]:
        (folder / name).write_bytes(data)
        # Not all seeds have results: where no input has, asking for them is refused.
        wanted = {"targets": RESULTS} if b"forces" in data else {"targets": {"gap": PROPERTIES["gap"]}}
        return {"kind": "extxyz", "path": folder / name} | (wanted if b"_gap=" in data or b"forces" in data else {})

    return place


def _csv_file(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "a.csv").write_bytes(data)
    source = {"kind": "csv", "path": folder / "a.csv", "id_column": "material_id"}
    for column in (b"gap", b"heat_all", b"energy_per_atom"):
        if column in data.partition(b"\n")[0].split(b","):
            source["targets"] = {"value": {"column": column.decode(), "unit": "eV"}}
    return source


def _json_file(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "a.json").write_bytes(data)
    return {"kind": "mp_json", "path": folder / "a.json", "targets": PROPERTIES, "id_key": "material_id"}


def _poscar_file(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "POSCAR").write_bytes(data)
    return {"kind": "poscar", "path": folder}


def _database(suffix: str) -> Callable[[bytes, Path], dict[str, Any]]:
    def place(data: bytes, folder: Path) -> dict[str, Any]:
        (folder / f"a{suffix}").write_bytes(data)
        return {"kind": "ase_db", "path": folder / f"a{suffix}", "targets": RESULTS | {"gap": PROPERTIES["gap"]}}

    return place


def _lmdb_entry(data: bytes, folder: Path) -> dict[str, Any]:
    """The mutated pickle between two sound ones."""
    import lmdb

    sound = pickle.dumps({"structure": random_crystal(4).as_dict(), "energy": -1.0})
    path = folder / "a.lmdb"
    path.unlink(missing_ok=True)
    options = {"subdir": False, "map_size": 1 << 22, "lock": False, "sync": False}
    with lmdb.open(str(path), **options) as opened, opened.begin(write=True) as writer:
        for number, value in enumerate((sound, data or b"\0", sound)):
            writer.put(b"%d" % number, value)
    source = {"kind": "lmdb", "path": path, "trust_pickle": True}
    return source | {"targets": {"energy": RESULTS["energy"]}}


KINDS = {
    "cif": Kind(_cif_seeds, _cif_file, inputs=1),
    "csv": Kind(lambda: [TABLE], _properties, inputs=3),
    "csv_cif": Kind(_csv_seeds, _csv_file),
    "extxyz": Kind(_extxyz_seeds, _extxyz_file("a.xyz")),
    "extxyz_gz": Kind(lambda: [gzip.compress(each, mtime=0) for each in _extxyz_seeds()], _extxyz_file("a.xyz.gz")),
    "mp_json": Kind(_json_seeds, _json_file),
    "poscar": Kind(_poscar_seeds, _poscar_file, inputs=1),
    "ase_sqlite": Kind(lambda: _database_seeds(".db", 3), _database(".db")),
    "ase_json": Kind(lambda: _database_seeds(".json", 3), _database(".json")),
    "lmdb": Kind(_pickle_seeds, _lmdb_entry, inputs=3),
}
"""By name; `csv` is a table of properties beside CIF files, `csv_cif` one with the structures in it."""
