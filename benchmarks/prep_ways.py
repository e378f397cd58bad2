"""Inputs that `prep.py` measures: how each is made for our side, and how other people's code reads it.

All ways but symmetry hold the same crystals, so that their rates tell about the formats.
"""

import csv
import json
import pickle
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.sources.base import Source
from matsci_hpc.sources.registry import open_source
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import TargetSpec

CUTOFF = 6.0
"""Angstrom, for crystals."""
CLOUD_CUTOFF = 2.0
"""Angstrom, for clouds: all pairs."""

PlainAtoms = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""Id, atomic numbers [N], positions [N, 3] and cell [3, 3] in angstrom, periodic directions [3]."""


@dataclass(frozen=True)
class Inputs:
    """What all ways begin with.

    Attributes:
        work: empty folder for what a way wants.
        cifs: texts of CIF files by id.
        clouds: how many symmetric clouds there are to make.
    """

    work: Path
    cifs: dict[str, bytes] = field(repr=False)
    clouds: int

    @cached_property
    def crystals(self) -> dict[str, Any]:
        """The same as structures of pymatgen."""
        return {name: by_pymatgen(text) for name, text in self.cifs.items()}

    @cached_property
    def atoms(self) -> dict[str, Any]:
        """The same as atoms of ASE."""
        from pymatgen.io.ase import AseAtomsAdaptor

        return {name: AseAtomsAdaptor.get_atoms(crystal) for name, crystal in self.crystals.items()}


@dataclass(frozen=True, slots=True)
class Way:
    """A source to measure.

    Attributes:
        title: what the table calls it.
        prepare: makes the input, and gives the `source` section of a config or a source itself.
        reference: reads the same input with other people's code.
        cutoff: of the neighbours, angstrom.
    """

    title: str
    prepare: Callable[[Inputs], dict[str, Any] | Source]
    reference: Callable[[Inputs], Iterator[PlainAtoms]]
    cutoff: float = CUTOFF


class InMemory:
    """Structures that are there already, as a source."""

    splits = ("train", "val")
    identity = "in memory"

    def __init__(self, structures: list[Structure]) -> None:
        self.structures = structures
        self.targets: dict[str, TargetSpec] = {}
        self.remarks: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.structures)

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """Some of the structures."""
        return iter(self.structures[start:stop])


def by_pymatgen(text: bytes | str) -> Any:
    """The structure in a CIF file."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = text if isinstance(text, str) else text.decode()
        return CifParser.from_str(content).parse_structures(primitive=False)[0]


def of_pymatgen(name: str, found: Any) -> PlainAtoms:
    """Arrays of a structure of pymatgen."""
    return name, np.array(found.atomic_numbers), found.cart_coords, np.array(found.lattice.matrix), np.array(found.pbc)


def of_ase(name: str, found: Any) -> PlainAtoms:
    """Arrays of atoms of ASE."""
    return name, found.numbers, found.positions, found.cell.array, found.pbc


def config_of(source: dict[str, Any], work: Path, cutoff: float = CUTOFF) -> PrepConfig:
    """A preparation with edges."""
    return PrepConfig.model_validate(
        {"source": source, "out": work / "out", "neighbors": {"cutoff": cutoff}, "splits": {"train": 0.9, "val": 0.1}}
    )


def tar_of_cifs(inputs: Inputs) -> dict[str, Any]:
    """CIF files in a tar."""
    path = inputs.work / "cifs.tar"
    with tarfile.open(path, "w") as tar:
        for name, text in inputs.cifs.items():
            (inputs.work / "one.cif").write_bytes(text)
            tar.add(inputs.work / "one.cif", arcname=f"{name}.cif")
    return {"kind": "cif", "path": path}


def plain_cifs(inputs: Inputs) -> Iterator[PlainAtoms]:
    """CIF files by pymatgen."""
    for name, text in inputs.cifs.items():
        yield of_pymatgen(name, by_pymatgen(text))


def in_memory(inputs: Inputs) -> Source:
    """What the CIF files hold."""
    source = open_source(config_of(tar_of_cifs(inputs), inputs.work), inputs.work)
    return InMemory([each for each in source.read(0, len(source)) if isinstance(each, Structure)])


def plain_memory(inputs: Inputs) -> Iterator[PlainAtoms]:
    """Structures that are there already: the caller takes them before the clock starts."""
    return (of_pymatgen(name, crystal) for name, crystal in inputs.crystals.items())


def poscar_folder(inputs: Inputs) -> dict[str, Any]:
    """POSCAR files."""
    from pymatgen.io.vasp.inputs import Poscar

    folder = inputs.work / "poscars"
    folder.mkdir()
    for name, crystal in inputs.crystals.items():
        (folder / f"{name}.vasp").write_text(Poscar(crystal).get_str(significant_figures=10))
    return {"kind": "poscar", "path": folder}


def plain_poscars(inputs: Inputs) -> Iterator[PlainAtoms]:
    """POSCAR files by pymatgen."""
    from pymatgen.io.vasp.inputs import Poscar

    for name in inputs.cifs:
        yield of_pymatgen(name, Poscar.from_file(inputs.work / "poscars" / f"{name}.vasp").structure)


def csv_of_cifs(inputs: Inputs) -> dict[str, Any]:
    """A table with a column of CIF."""
    path = inputs.work / "table.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "cif"])
        table.writerows((name, text.decode()) for name, text in inputs.cifs.items())
    return {"kind": "csv", "path": path, "structure_column": "cif", "id_column": "id"}


def plain_csv(inputs: Inputs) -> Iterator[PlainAtoms]:
    """The table by Python, its CIF by pymatgen."""
    with (inputs.work / "table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield of_pymatgen(row["id"], by_pymatgen(row["cif"]))


def extxyz_file(inputs: Inputs) -> dict[str, Any]:
    """Extended XYZ."""
    import ase.io

    path = inputs.work / "frames.xyz"
    frames = list(inputs.atoms.values())
    ase.io.write(path, frames, format="extxyz", columns=["symbols", "positions"])
    return {"kind": "extxyz", "path": path}


def plain_extxyz(inputs: Inputs) -> Iterator[PlainAtoms]:
    """Extended XYZ by ASE."""
    import ase.io

    for number, found in enumerate(ase.io.iread(inputs.work / "frames.xyz", index=":", format="extxyz")):
        yield of_ase(str(number), found)


def json_file(inputs: Inputs) -> dict[str, Any]:
    """A list of structures as pymatgen writes them."""
    path = inputs.work / "documents.json"
    path.write_text(json.dumps([crystal.as_dict() for crystal in inputs.crystals.values()]))
    return {"kind": "mp_json", "path": path}


def plain_json(inputs: Inputs) -> Iterator[PlainAtoms]:
    """The list by Python, its structures by pymatgen."""
    from pymatgen.core import Structure as Crystal

    for number, document in enumerate(json.loads((inputs.work / "documents.json").read_text())):
        yield of_pymatgen(str(number), Crystal.from_dict(document))


def ase_database(inputs: Inputs) -> dict[str, Any]:
    """An SQLite database of ASE."""
    import ase.db

    path = inputs.work / "rows.db"
    with ase.db.connect(path) as database:
        for atoms in inputs.atoms.values():
            database.write(atoms)
    return {"kind": "ase_db", "path": path}


def plain_database(inputs: Inputs) -> Iterator[PlainAtoms]:
    """The database by ASE."""
    import ase.db

    for row in ase.db.connect(inputs.work / "rows.db").select():
        yield of_ase(str(row.id), row.toatoms())


def lmdb_of_pickles(inputs: Inputs) -> dict[str, Any]:
    """Pickled dictionaries with a structure of pymatgen, as the Open MatSci ML Toolkit keeps materials."""
    import lmdb

    path = inputs.work / "entries.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=1 << 34) as environment, environment.begin(write=True) as all_:
        for number, crystal in enumerate(inputs.crystals.values()):
            all_.put(str(number).encode(), pickle.dumps({"structure": crystal}))
    return {"kind": "lmdb", "path": path, "trust_pickle": True}


def plain_lmdb(inputs: Inputs) -> Iterator[PlainAtoms]:
    """The entries by lmdb and pickle."""
    import lmdb

    path = str(inputs.work / "entries.lmdb")
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as environment, environment.begin() as all_:
        for key, value in all_.cursor():
            yield of_pymatgen(key.decode(), pickle.loads(value)["structure"])  # noqa: S301 - written above


def prepared_shards(inputs: Inputs) -> dict[str, Any]:
    """A data set of ours, with edges, and one HDF5 group per structure for the other side."""
    config = config_of(tar_of_cifs(inputs), inputs.work)
    prepare(config.model_copy(update={"out": inputs.work / "set"}), World())
    with h5py.File(inputs.work / "groups.h5", "w") as file:
        for name, crystal in inputs.crystals.items():
            _, numbers, position, cell, pbc = of_pymatgen(name, crystal)
            group = file.create_group(name)
            for key, array in {"numbers": numbers, "position": position, "cell": cell, "pbc": pbc}.items():
                group.create_dataset(key, data=array)
    return {"kind": "shards", "path": inputs.work / "set"}


def plain_groups(inputs: Inputs) -> Iterator[PlainAtoms]:
    """One HDF5 group per structure, without edges."""
    with h5py.File(inputs.work / "groups.h5") as file:
        for name, group in file.items():
            yield name, group["numbers"][()], group["position"][()], group["cell"][()], group["pbc"][()]


def clouds(inputs: Inputs) -> dict[str, Any]:
    """Clouds of the 32 crystallographic point groups."""
    return {"kind": "symmetry", "samples": inputs.clouds, "seed": 121}


def plain_clouds(inputs: Inputs) -> Iterator[PlainAtoms]:
    """Such clouds from the point groups of pymatgen: images of random points, turned, scaled into the unit sphere."""
    from pymatgen.symmetry.groups import PointGroup
    from scipy.spatial.transform import Rotation

    operations = [np.array([each.rotation_matrix for each in PointGroup(name).symmetry_ops]) for name in POINT_GROUPS]
    random = np.random.default_rng(0)
    for number in range(len(inputs.cifs)):
        group = operations[random.integers(len(operations))]
        seeds = random.normal(size=(max(3, 25 // len(group)), 3))
        position = np.einsum("gij,sj->sgi", group, seeds).reshape(-1, 3)
        kinds = np.repeat(random.integers(1, 100, len(seeds)), len(group))
        position = position @ Rotation.random(random_state=random).as_matrix().T
        position /= np.linalg.norm(position, axis=1).max()
        yield f"cloud-{number}", kinds, position, np.zeros((3, 3)), np.zeros(3, dtype=bool)


POINT_GROUPS = [
    *("1", "-1", "2", "m", "2/m", "222", "mm2", "mmm", "4", "-4", "4/m", "422", "4mm", "-42m", "4/mmm", "3", "-3"),
    *("32", "3m", "-3m", "6", "-6", "6/m", "622", "6mm", "-6m2", "6/mmm", "23", "m-3", "432", "-43m", "m-3m"),
]

WAYS = {
    "memory": Way("structures in memory", in_memory, plain_memory),
    "cif": Way("CIF files in a tar", tar_of_cifs, plain_cifs),
    "csv": Way("CSV with a CIF column", csv_of_cifs, plain_csv),
    "poscar": Way("POSCAR files", poscar_folder, plain_poscars),
    "extxyz": Way("extended XYZ", extxyz_file, plain_extxyz),
    "ase_db": Way("ASE database (SQLite)", ase_database, plain_database),
    "mp_json": Way("JSON of pymatgen", json_file, plain_json),
    "lmdb": Way("LMDB of pickles", lmdb_of_pickles, plain_lmdb),
    "shards": Way("shards, edges copied", prepared_shards, plain_groups),
    "symmetry": Way("symmetric clouds", clouds, plain_clouds, CLOUD_CUTOFF),
}
