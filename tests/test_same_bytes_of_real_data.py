"""Real CIF, POSCAR and extxyz inputs, good and damaged, and their merger: the same bytes by 1, 2, 3 and 5 ranks."""

import gzip
import io
import itertools
import json
import math
import tarfile
from pathlib import Path

import pytest
from preparation import data_set, run_on_ranks, run_program
from pymatgen.core import Structure
from pymatgen.io.vasp.inputs import Poscar
from shared_data import shared_data

from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.shards.verify import verify

CIFS, POSCARS, FRAMES = 120, 40, 150
HUGE_ATOMS = 2000
"""Of one crystal among some with 20 atoms each."""
NAMES = ("cif", "poscar", "extxyz", "merged")


def members(name, count):
    """The first CIF files of an archive."""
    with tarfile.open(shared_data(name), "r|gz") as archive:
        files = (each for each in archive if each.isfile() and each.name.endswith(".cif"))
        return {Path(each.name).name: archive.extractfile(each).read() for each in itertools.islice(files, count)}


def archive_of(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def damaged(data):
    """A file that breaks off, one that is no text, and one of nothing."""
    return {"cut": data[: len(data) // 2], "no-text": bytes(range(256)) * 4, "empty": b""}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The `source` section of each preparation, and the number of its inputs."""
    folder = tmp_path_factory.mktemp("real")
    real = members("3dsc_cifs.tar.gz", CIFS)
    crystals = {name: Structure.from_str(data.decode(), fmt="cif") for name, data in list(real.items())[:POSCARS]}
    smallest = min(crystals.values(), key=len).copy()
    smallest.make_supercell([math.ceil(HUGE_ATOMS / len(smallest) / 100), 10, 10])

    first, data = next(iter(real.items()))
    cifs = real | {f"matbench/{name}": data for name, data in members("matbench_mp_gap/cifs.tar.gz", 40).items()}
    cifs |= {f"m-{name}.cif": bad for name, bad in damaged(data).items()} | {f"twice/{first}": data}
    cifs["a-huge.cif"] = smallest.to(fmt="cif").encode()

    poscars = {f"{Path(name).stem}/POSCAR": Poscar(each).get_str().encode() for name, each in crystals.items()}
    first = next(iter(poscars.values()))
    poscars |= {f"m-{name}.vasp": bad for name, bad in damaged(first).items()}
    lines = first.split(b"\n")
    poscars["vasp-4.vasp"] = b"\n".join(lines[:5] + lines[6:])

    frames = shared_data("extxyz/mptrj-random-1k.xyz").read_bytes().splitlines(keepends=True)
    ends = list(itertools.accumulate(range(FRAMES), lambda end, _: end + int(frames[end]) + 2, initial=0))
    frames[ends[7] + 2] = frames[ends[7] + 2].replace(frames[ends[7] + 2].split()[0], b"Qq", 1)
    frames[ends[90] + 1] = frames[ends[90] + 1].replace(b'stress="', b'stress="x ', 1)
    (folder / "snapshots.extxyz.gz").write_bytes(gzip.compress(b"".join(frames[: ends[FRAMES]]), mtime=0))

    labels = {"formation_energy": {"column": "formation_energy_per_atom_eV", "unit": "eV/atom"}}
    results = {"energy": {"key": "energy", "unit": "eV"}}
    results["force"] = {"key": "forces", "unit": "eV/angstrom", "shape": [3], "per_atom": True}
    results["stress"] = {"key": "stress", "unit": "eV/angstrom^3", "shape": [3, 3]}
    cif = {"kind": "cif", "path": archive_of(folder / "cifs.tar.gz", cifs), "targets": labels}
    cif |= {"properties": shared_data("3dsc_labels.csv"), "id_column": "material_id", "split_column": "megnet_split"}
    poscar = {"kind": "poscar", "path": archive_of(folder / "poscars.tar.gz", poscars)}
    extxyz = {"kind": "extxyz", "path": folder / "snapshots.extxyz.gz", "targets": results}
    return {"cif": (cif, len(cifs)), "poscar": (poscar, len(poscars)), "extxyz": (extxyz, FRAMES)}


def prepare_all(inputs, folder, run):
    """The three data sets and the one that is merged of them, in a folder.

    Args:
        inputs: sections as JSON can hold them, by name.
        folder: for all data sets.
        run: gets the arguments of the program.
    """
    sections = {name: section for name, (section, _) in inputs.items()}
    sections["merged"] = {"kind": "shards", "path": [folder / name for name in sections], "prefix_ids": True}
    for name in NAMES:
        config = {"source": sections[name], "out": folder / name, "shard_size": 17 if name == "merged" else 8}
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(config | {"neighbors": {"cutoff": 5.0}}, default=str))
        done = run(path)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def by_one(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("by-one")
    prepare_all(inputs, folder, lambda config: run_program("prep", config))
    return folder


def test_nothing_is_lost(inputs, by_one):
    counts = {name: read_manifest(by_one / name).counts for name in NAMES}
    for name, (_, listed) in inputs.items():
        assert counts[name].inputs == listed
        assert counts[name].samples + counts[name].quarantined == listed
    # The damaged ones and a second file of an id; the real data may have faults of their own.
    assert counts["cif"].quarantined >= 4
    assert counts["poscar"].quarantined >= 4
    assert counts["extxyz"].quarantined == 2
    assert counts["merged"].samples == sum(counts[name].samples for name in inputs)
    assert all(verify(by_one / name) == [] for name in NAMES)
    named = {json.loads(line)["source"] for line in (by_one / "cif/quarantine.jsonl").read_text().splitlines()}
    assert "a-huge.cif" not in named
    assert {"m-cut.cif", "m-no-text.cif", "m-empty.cif"} <= named


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_same_bytes_by_more_ranks(inputs, by_one, tmp_path, ranks):
    prepare_all(inputs, tmp_path, lambda config: run_on_ranks(ranks, ["-m", "matsci_hpc", "prep", config]))
    for name in NAMES:
        found, expected = data_set(tmp_path / name), data_set(by_one / name)
        assert found.keys() == expected.keys()
        assert [file for file in expected if found[file] != expected[file]] == [], name
        assert len([file for file in expected if file.startswith("shard-")]) > 2
