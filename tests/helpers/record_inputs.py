"""Inputs of every kind that holds many records, made of chains of copper atoms of given lengths."""

import json
import pickle

import lmdb
from ase import Atoms
from ase.db import connect
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

NAMES = {
    "csv": "a.csv",
    "mp_json": "a.jsonl",
    "extxyz": "a.xyz",
    "ase_db": "a.db",
    "lmdb": "a.lmdb",
}
"""What a file of each kind may be called."""


def chain(atoms):
    places = [[number / atoms, 0, 0] for number in range(atoms)]
    return Structure(Lattice.orthorhombic(3.0 * atoms, 4, 4), ["Cu"] * atoms, places)


def write_csv(path, lengths):
    rows = "".join(f'{number:03d},"{CifWriter(chain(atoms))}"\n' for number, atoms in enumerate(lengths))
    path.write_text(f"id,cif\n{rows}")


def write_mp_json(path, lengths):
    documents = [{"id": f"{number:03d}", "structure": chain(atoms).as_dict()} for number, atoms in enumerate(lengths)]
    lines = (f"{json.dumps(each)}\n" for each in documents)
    path.write_text("".join(lines) if path.suffix == ".jsonl" else json.dumps(documents))


def write_extxyz(path, lengths):
    with path.open("w") as file:
        for number, atoms in enumerate(lengths):
            file.write(f'{atoms}\nLattice="{3 * atoms} 0 0 0 4 0 0 0 4" id={number:03d}\n')
            file.writelines(f"Cu {3 * place} 0 0\n" for place in range(atoms))


def write_ase_db(path, lengths):
    with connect(path) as database:
        for number, atoms in enumerate(lengths):
            places = [[3 * place, 0, 0] for place in range(atoms)]
            database.write(Atoms("Cu" * atoms, positions=places, cell=[3 * atoms, 4, 4], pbc=True), number=number)


def write_lmdb(path, lengths):
    environment = lmdb.open(str(path), subdir=False, map_size=1 << 28)
    with environment.begin(write=True) as transaction:
        for number, atoms in enumerate(lengths):
            transaction.put(b"%d" % number, pickle.dumps({"structure": chain(atoms).as_dict()}))
    environment.close()


def write_records(kind, path, lengths):
    """A file of a kind with a chain of each length."""
    writers = {
        "csv": write_csv,
        "mp_json": write_mp_json,
        "extxyz": write_extxyz,
        "ase_db": write_ase_db,
        "lmdb": write_lmdb,
    }
    writers[kind](path, lengths)


def section(kind, *paths):
    """A `source` section that reads some files."""
    return {"kind": kind, "path": [str(path) for path in paths]} | ({"trust_pickle": True} if kind == "lmdb" else {})
