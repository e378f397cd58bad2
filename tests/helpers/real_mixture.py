"""Small parts of the real data sets, prepared: materials of several kinds with targets of several kinds."""

import csv
import tarfile
from pathlib import Path

from shared_data import shared_data

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare

CUTOFF = 4.0
TAIL = f"shard_size: 16\nneighbors: {{cutoff: {CUTOFF}}}\n"
SPLITS = "{train: 0.7, val: 0.3}"


def prepare_real_mixture(folder: Path) -> dict[str, Path]:
    """Data sets by name; the test is skipped where the real data are not there.

    perov_5 and carbon_24 (eV/atom), 3dsc (eV/atom and band gaps, half of the crystals without), mptrj (eV of the whole
    cell), symmetry (classes and labels): no target is in two of them.
    """
    sources = {
        "perov_5": few_rows(folder, "perov_5/val.csv", 90, "heat_of_formation: {column: heat_all, unit: eV/atom}"),
        "carbon_24": few_rows(
            folder, "carbon_24/val.csv", 40, "carbon_energy: {column: energy_per_atom, unit: eV/atom}"
        ),
        "3dsc": _crystals(folder, 60),
        "mptrj": frames(folder, 40),
        "symmetry": "{kind: symmetry, samples: 40, max_atoms: 12, groups: [C2, C3, C6, Ci], subgroups: true}",
    }
    return {name: prepare_one(folder / name, source) for name, source in sources.items()}


def prepare_one(folder: Path, source: str, splits: str = SPLITS) -> Path:
    """Prepare a data set from the text of its section `source`."""
    folder.mkdir()
    config = folder / "prep.yaml"
    config.write_text(f"source: {source}\nout: {folder}/data\n{TAIL}splits: {splits}\n")
    prepare(load_config(PrepConfig, config), World())
    return folder / "data"


def few_rows(folder: Path, name: str, rows: int, target: str) -> str:
    """The first rows of a CSV file with a column of CIF text."""
    csv.field_size_limit(1 << 24)
    path = folder / name.replace("/", "-")
    with shared_data(name).open(newline="") as file, path.open("w", newline="") as few:
        table = csv.writer(few)
        for number, row in enumerate(csv.reader(file)):
            if number <= rows:
                table.writerow(row)
    return f"{{kind: csv, path: {path}, structure_column: cif, id_column: material_id, targets: {{{target}}}}}"


def _crystals(folder: Path, count: int) -> str:
    """Small CIF files of 3DSC with the table of all of them."""
    (folder / "cifs").mkdir()
    with tarfile.open(shared_data("3dsc_cifs.tar.gz")) as archive:
        small = [each for each in archive if each.isfile() and each.size < 4000]
        for member in small[:count]:
            content = archive.extractfile(member)
            assert content is not None
            (folder / "cifs" / Path(member.name).name).write_bytes(content.read())
    labels = shared_data("3dsc_labels.csv")
    targets = (
        "formation_energy: {column: formation_energy_per_atom_eV, unit: eV/atom}, "
        "band_gap: {column: band_gap_pbe_eV, unit: eV}"
    )
    return f"{{kind: cif, path: {folder}/cifs, properties: {labels}, id_column: material_id, targets: {{{targets}}}}}"


def frames(folder: Path, count: int) -> str:
    """Small frames of MPtrj."""
    lines = shared_data("extxyz/mptrj-random-1k.xyz").read_text().splitlines(keepends=True)
    path, start, found = folder / "mptrj.xyz", 0, []
    while start < len(lines) and len(found) < count:
        stop = start + 2 + int(lines[start])
        if stop - start < 26:
            found.append("".join(lines[start:stop]))
        start = stop
    path.write_text("".join(found))
    return f"{{kind: extxyz, path: {path}, id_key: mptrj_snapshot_id, targets: {{energy: {{key: energy, unit: eV}}}}}}"
