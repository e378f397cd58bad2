"""Structures per core second into written shards with edges: `python benchmarks/prep.py [--structures N]`.

Needs real data (`--data`, ../shared/data beside the project if left out). Each way is timed beside a plain reference in
the same run: pymatgen's CifParser where there is text, the neighbour list of ASE, and an HDF5 group for each structure.
Times are those of the processor. A further source is one more line in `WAYS`.
"""

import argparse
import itertools
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.conversion import block_content, read_block
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.base import Source
from matsci_hpc.sources.registry import open_source
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import checksum, write_atomic

CUTOFF = 6.0
"""Angstrom."""


@dataclass(frozen=True, slots=True)
class Way:
    """A source to measure.

    Attributes:
        title: what the table calls it.
        prepare: makes the `source` section of a config from the data and an empty folder, or a source itself.
        reference: reads the same inputs as (id, atomic numbers, positions, cell, pbc) with other people's code.
    """

    title: str
    prepare: Callable[["Inputs"], dict[str, Any] | Source]
    reference: Callable[["Inputs"], Iterator["PlainAtoms"]]


PlainAtoms = tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that all ways begin with.

    Attributes:
        data: folder of the real data.
        work: empty folder for what a way wants.
        cifs: texts of CIF files by id.
    """

    data: Path
    work: Path
    cifs: dict[str, bytes]


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


def cif_folder(inputs: Inputs) -> dict[str, Any]:
    """CIF files in a tar."""
    path = inputs.work / "cifs.tar"
    with tarfile.open(path, "w") as tar:
        for name, text in inputs.cifs.items():
            (inputs.work / "one.cif").write_bytes(text)
            tar.add(inputs.work / "one.cif", arcname=f"{name}.cif")
    return {"kind": "cif", "path": path}


def in_memory(inputs: Inputs) -> Source:
    """What the CIF files hold."""
    source = open_source(config_of(cif_folder(inputs), inputs.work), inputs.work)
    return InMemory([each for each in source.read(0, len(source)) if isinstance(each, Structure)])


def poscar_folder(inputs: Inputs) -> dict[str, Any]:
    """The same structures as POSCAR files."""
    from pymatgen.io.vasp.inputs import Poscar

    folder = inputs.work / "poscars"
    folder.mkdir()
    for name, text in inputs.cifs.items():
        poscar = Poscar(by_pymatgen(text))
        (folder / f"{name}.vasp").write_text(poscar.get_str(significant_figures=10))
    return {"kind": "poscar", "path": folder}


def by_pymatgen(text: bytes) -> Any:
    """The structure in a CIF file."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CifParser.from_str(text.decode()).parse_structures(primitive=False)[0]


def plain_cifs(inputs: Inputs) -> Iterator[PlainAtoms]:
    """CIF files by pymatgen."""
    for name, text in inputs.cifs.items():
        found = by_pymatgen(text)
        numbers = np.array(found.atomic_numbers)
        yield name, numbers, found.cart_coords, np.array(found.lattice.matrix), np.ones(3, dtype=bool)


def plain_poscars(inputs: Inputs) -> Iterator[PlainAtoms]:
    """POSCAR files by ASE."""
    import ase.io

    for name in inputs.cifs:
        found = ase.io.read(inputs.work / "poscars" / f"{name}.vasp", format="vasp")
        yield name, found.numbers, found.positions, found.cell.array, found.pbc


def plain_memory(inputs: Inputs) -> Iterator[PlainAtoms]:
    """Structures that are there already; the caller takes them before the clock starts."""
    source = in_memory(inputs)
    for each in source.read(0, len(source)):
        if isinstance(each, Structure):
            position, cell = each.position.astype(float), each.cell.astype(float)
            yield each.id, each.atomic_number, position, cell, each.pbc


WAYS = {
    "memory": Way("structures in memory", in_memory, plain_memory),
    "cif": Way("CIF text", cif_folder, plain_cifs),
    "poscar": Way("POSCAR text", poscar_folder, plain_poscars),
}


def config_of(source: dict[str, Any], work: Path) -> PrepConfig:
    """A preparation with edges."""
    return PrepConfig.model_validate(
        {"source": source, "out": work / "out", "neighbors": {"cutoff": CUTOFF}, "splits": {"train": 0.9, "val": 0.1}}
    )


def ours(way: Way, inputs: Inputs) -> tuple[float, float]:
    """Structures per core second by the code of this project, and edges per structure."""
    source = way.prepare(inputs)
    config = config_of(source if isinstance(source, dict) else {"kind": "symmetry", "samples": 1}, inputs.work)
    opened = open_source(config, inputs.work) if isinstance(source, dict) else source
    read_block(config, opened, 0, 8)  # imports
    start_s, edges = time.process_time(), 0
    for number, begin in enumerate(range(0, len(opened), config.shard_size)):
        end = min(begin + config.shard_size, len(opened))
        structures, found, _ = read_block(config, opened, begin, end)
        content = block_content(config, opened, structures, found, number)
        image = shard_image(content)
        write_atomic(inputs.work / f"shard-{number}.h5", image)
        checksum(image)
        edges += content.edges
    return len(opened) / (time.process_time() - start_s), edges / len(opened)


def theirs(way: Way, inputs: Inputs) -> float:
    """Structures per core second by the plain reference."""
    from ase.neighborlist import primitive_neighbor_list

    plain = way.reference(inputs)
    if way.reference is plain_memory:
        plain = iter(list(plain))
    first = next(plain)  # imports
    count, start_s = 0, time.process_time()
    with h5py.File(inputs.work / "reference.h5", "w") as file:
        for name, numbers, position, cell, pbc in itertools.chain([first], plain):
            i, j, shift = primitive_neighbor_list("ijS", pbc, cell, position, CUTOFF)
            group = file.create_group(name)
            for key, array in {"numbers": numbers, "position": position, "cell": cell, "pbc": pbc}.items():
                group.create_dataset(key, data=array)
            group.create_dataset("edges", data=np.stack([i, j]).astype(np.int32))
            group.create_dataset("shift", data=shift.astype(np.int8))
            count += 1
    return count / (time.process_time() - start_s)


def sample_cifs(data: Path, count: int, whole: int = 106_113) -> dict[str, bytes]:
    """CIF files spread evenly over the set matbench_mp_gap."""
    found: dict[str, bytes] = {}
    step = max(1, whole // count)
    with tarfile.open(data / "matbench_mp_gap/cifs.tar.gz", "r|gz") as archive:
        files = (each for each in archive if each.name.endswith(".cif"))
        for number, member in enumerate(files):
            if number % step == 0 and len(found) < count and (file := archive.extractfile(member)) is not None:
                found[Path(member.name).stem] = file.read()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1].parent / "shared/data")
    parser.add_argument("--structures", type=int, default=4096)
    parser.add_argument("--reference", type=int, default=200, help="structures for the reference, which is slow")
    parser.add_argument("--only", choices=WAYS, action="append")
    arguments = parser.parse_args()
    cifs = sample_cifs(arguments.data, arguments.structures)
    some = dict(list(cifs.items())[:: max(1, len(cifs) // arguments.reference)])
    print(
        f"{len(cifs)} structures of matbench_mp_gap, edges to {CUTOFF} angstrom; {len(some)} of them for the reference"
    )
    print(
        "| source | structures per core second | edges per structure | plain reference | ratio |\n|---|---|---|---|---|"
    )
    for kind in arguments.only or WAYS:
        way = WAYS[kind]
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            rate, edges = ours(way, Inputs(arguments.data, Path(one), cifs))
            beside = Inputs(arguments.data, Path(other), some)
            way.prepare(beside)
            reference = theirs(way, beside)
        print(f"| {way.title} | {rate:,.0f} | {edges:,.0f} | {reference:,.1f} | {rate / reference:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
