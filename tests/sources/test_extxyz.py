import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read as ase_read
from ase.io import write as ase_write
from preparation import data_set, run_on_ranks, run_program
from shared_data import shared_data

from matsci_hpc.config.record_sources import ExtxyzSource as Config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.shards.verify import verify
from matsci_hpc.sources.extxyz import ExtxyzFrames, from_ase
from matsci_hpc.sources.records import RecordError
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.training.tasks import build_tasks

TARGETS = {
    "energy": {"key": "energy", "unit": "eV"},
    "force": {"key": "forces", "unit": "eV/angstrom", "shape": [3], "per_atom": True},
    "stress": {"key": "stress", "unit": "eV/angstrom^3", "shape": [3, 3]},
    "metal": {"key": "is_metal", "kind": "binary"},
    "family": {"key": "family", "kind": "class"},
}


def frame(number):
    """A crystal or molecule with labels, some of them absent."""
    rng = np.random.default_rng(number)
    if number % 6 == 5:
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    else:
        atoms = bulk(("Cu", "Fe", "Al", "W", "Si")[number % 5]).repeat((1, 1, 1 + number % 3))
    atoms.rattle(0.05, seed=number)
    atoms.info = {"name": f"crystal {number}", "is_metal": number % 5 != 4, "fold": ("train", "val")[number % 2]}
    if number % 4:
        atoms.info["family"] = ("pure metal", "other")[number % 3 % 2]
    results = {"energy": float(rng.normal())}
    if number % 3:
        results["forces"] = rng.normal(size=(len(atoms), 3))
        if atoms.pbc.all():
            results["stress"] = rng.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="module")
def text():
    stream = io.StringIO()
    ase_write(stream, [frame(number) for number in range(60)], format="extxyz")
    return stream.getvalue()


def open_source(path, staging, **more):
    return ExtxyzFrames.from_config(Config(kind="extxyz", path=path, **more), ("train",), staging)


def read_all(source):
    return list(source.read(0, len(source)))


def test_frames_are_those_of_ase(text, tmp_path):
    (tmp_path / "a.xyz").write_text(text)
    source = open_source(tmp_path / "a.xyz", tmp_path, targets=TARGETS, id_key="name", split_key="fold")
    assert source.splits == ("train", "val")
    assert source.targets["family"].classes == ("other", "pure metal")
    for each, atoms in zip(read_all(source), ase_read(tmp_path / "a.xyz", ":"), strict=True):
        assert isinstance(each, Structure)
        assert each.fault(source.targets) is None
        assert (each.id, each.split) == (atoms.info["name"], atoms.info["fold"])
        np.testing.assert_array_equal(each.atomic_number, atoms.numbers)
        np.testing.assert_array_equal(each.position, atoms.positions.astype("f4"))
        np.testing.assert_array_equal(each.cell, atoms.cell.array.astype("f4"))
        np.testing.assert_array_equal(each.pbc, atoms.pbc)
        assert each.targets["energy"] == atoms.get_potential_energy()
        assert ("force" in each.targets) == ("forces" in atoms.calc.results)
        if "force" in each.targets:
            np.testing.assert_array_equal(each.targets["force"], atoms.get_forces())
        if "stress" in each.targets:
            np.testing.assert_allclose(each.targets["stress"], atoms.get_stress(voigt=False))
        assert each.targets["metal"] == atoms.info["is_metal"]
        assert ("family" in each.targets) == ("family" in atoms.info)


def test_any_range_of_any_packing(text, tmp_path):
    """A file, a compressed one, a folder of both, and an archive of that."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.xyz").write_text(text)
    (folder / "b.extxyz.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "notes.txt").write_text("not a frame")
    with tarfile.open(tmp_path / "frames.tar.gz", "w:gz") as tar:
        tar.add(folder, ".")
    loose = open_source(folder, tmp_path / "x", targets=TARGETS)
    packed = open_source(tmp_path / "frames.tar.gz", tmp_path / "y", targets=TARGETS)
    assert (len(loose), len(packed)) == (120, 120)
    assert loose.identity == packed.identity
    packed = pickle.loads(pickle.dumps(packed))  # noqa: S301 - as ranks get it
    whole = read_all(loose)
    assert [each.id for each in whole] == [f"{name}#{n}" for name in ("a.xyz", "b.extxyz") for n in range(60)]
    for start, stop in [(0, 1), (15, 17), (59, 61), (40, 90), (119, 120), (7, 7)]:
        for one, other in zip(whole[start:stop], packed.read(start, stop), strict=True):
            assert one.id == other.id
            np.testing.assert_array_equal(one.position, other.position)


def test_bad_frames_are_rejected_and_the_next_ones_read(tmp_path):
    frames = [
        '1\nLattice="3 0 0 0 3 0 0 0 3" energy=1.0\nCu 0 0 0\n',
        "1\nenergy=2.0\nXx 0 0 0\n",
        "1\nProperties=species:S:1:pos:R:3 energy=3.0\nCu 0 zero 0\n",
        "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=4.0\nCu 0 0 0 1 nan 2\n",
        "1\nenergy=wide\nCu 0 0 0\n",
        "1\nanything at all\nCu 0 0 0\n",
        "1\nProperties=species:S:1:pos:R:1000000000\nCu 0 0 0\n",
        "1\nProperties=species:S:1:x:R:3\nCu 0 0 0\n",
        "1\n\nCu 1e300 0 0\n",
    ]
    (tmp_path / "a.xyz").write_text("\n".join(frames))
    targets = {name: TARGETS[name] for name in ("energy", "force")}
    found = read_all(open_source(tmp_path / "a.xyz", tmp_path, targets=targets))
    kinds = [Structure, Rejected, Rejected, Structure, Rejected, Structure, Rejected, Rejected, Structure]
    assert [type(each) for each in found] == kinds
    assert found[1].source == "a.xyz frame 1"
    assert "partly absent: 1 of its 3" in found[3].fault(
        open_source(tmp_path / "a.xyz", tmp_path, targets=targets).targets
    )
    assert found[4].reason == "target energy is 'wide', not a number"
    assert not found[5].pbc.any()
    assert not found[5].targets
    assert "names 1,000,000,001 columns, and the first atom has 4" in found[6].reason
    assert "no column pos" in found[7].reason
    assert found[8].fault() == "a position is not a finite number"


def test_a_byte_order_mark(text, tmp_path):
    (tmp_path / "a.xyz").write_text(text)
    (tmp_path / "b.xyz").write_bytes(b"\xef\xbb\xbf" + text.encode())
    plain, marked = (open_source(tmp_path / name, tmp_path / name[0] / "x") for name in ("a.xyz", "b.xyz"))
    assert len(marked) == len(plain)
    for start, stop in [(0, 1), (3, 20), (0, len(plain))]:
        for one, other in zip(plain.read(start, stop), marked.read(start, stop), strict=True):
            np.testing.assert_array_equal(one.position, other.position)


@pytest.mark.parametrize("name", ["positions", "numbers", "text"])
def test_atoms_of_ase_that_are_not_whole(name):
    atoms = frame(0)
    if name == "text":
        atoms.arrays["numbers"] = np.array(["Cu"] * len(atoms))
    else:
        del atoms.arrays[name]
    with pytest.raises(RecordError, match="no chemical element" if name == "text" else f"KeyError: '{name}'"):
        from_ase(atoms)


def test_an_unreadable_frame_does_not_shift_the_numbers_of_those_with_the_same_id(tmp_path):
    """What reads as far as its id counts once, though its class cannot be read."""
    frames = [("z", "fam=u", 0), ("a", "", "zero"), ("b", "fam=u", 0), ("b", "fam=u", 0), ("c", "fam=u", 0)]
    (tmp_path / "a.xyz").write_text("".join(f"1\nname={name} {more}\nCu 0 0 {z}\n" for name, more, z in frames))
    source = open_source(
        tmp_path / "a.xyz", tmp_path, id_key="name", targets={"family": {"key": "fam", "kind": "class"}}
    )
    assert source.doubled == {3: 2}
    assert [getattr(each, "id", None) for each in read_all(source)] == ["z", None, "b", None, "c"]


WRONG = {
    "cut off": ("2\n\nCu 0 0 0\n", {}, r"a\.xyz: breaks off in the frame of 2 atoms that begins in line 1"),
    "beyond counting": ("9" * 5000 + "\n\nCu 0 0 0\n", {}, f"line 1 should be a number of atoms, and is '{'9' * 40}'"),
    "no number": ("1\n\nCu 0 0 0\nCu 0 0 0\n", {}, "line 4 should be a number of atoms, and is 'Cu 0 0 0'"),
    "no key": ("1\nenergy=1\nCu 0 0 0\n", {"targets": {"gap": {"key": "gap"}}}, "anything under 'gap'.*energy"),
}


@pytest.mark.parametrize(("data", "more", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files(data, more, message, tmp_path):
    (tmp_path / "a.xyz").write_text(data)
    with pytest.raises(UserInputError, match=message):
        open_source(tmp_path / "a.xyz", tmp_path, **more)


@pytest.fixture(scope="module")
def prepared(text, tmp_path_factory):
    """The data set by one rank, from a compressed file."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "a.xyz.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    source = {"kind": "extxyz", "path": str(folder / "a.xyz.gz"), "targets": TARGETS, "split_key": "fold"}
    config = {"source": source, "out": str(folder / "one"), "shard_size": 7, "neighbors": {"cutoff": 3.0}}
    (folder / "prep.yaml").write_text(json.dumps(config))
    done = run_program("prep", folder / "prep.yaml")
    assert done.returncode == 0, done.stderr
    assert "force (regression of 3 per atom): 40 labelled" in done.stdout
    assert "stress (regression of 3 x 3)" in done.stdout
    return folder


@pytest.mark.mpi
def test_same_bytes_for_three_ranks(prepared):
    args = ["-m", "matsci_hpc", "prep", prepared / "prep.yaml", f"out={prepared / 'three'}"]
    done = run_on_ranks(3, args)
    assert done.returncode == 0, done.stderr
    assert data_set(prepared / "three") == data_set(prepared / "one")
    assert verify(prepared / "three") == []


def test_batches_carry_vectors_and_forces(prepared):
    collection = Collection([prepared / "one"])
    assert collection.targets["force"].per_atom
    samples = np.array([0, 1, 2, 9, 30, 31, 59])
    batch = collate(collection, samples)
    pointer = batch.atom_pointer.tolist()
    for place, number in enumerate(samples.tolist()):
        results = frame(number).calc.results
        force = batch.targets["force"][pointer[place] : pointer[place + 1]].numpy()
        assert bool(batch.present["force"][place]) == ("forces" in results)
        assert bool(batch.present["stress"][place]) == ("stress" in results)
        np.testing.assert_allclose(force, results.get("forces", np.zeros_like(force)), atol=1e-6)
        xx, yy, zz, yz, xz, xy = results.get("stress", np.zeros(6))
        tensor = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
        np.testing.assert_allclose(batch.targets["stress"][place].numpy(), tensor, atol=1e-6)


def test_training_leaves_them_out_and_says_so_if_asked(prepared):
    collection = Collection([prepared / "one"])
    config = {"run_dir": "run", "data": {"train": [str(prepared / "one")]}, "steps": 1, "batch": {"graphs": 4}}
    names = [task.name for task in build_tasks(TrainConfig.model_validate(config), collection)]
    assert names == ["energy", "family", "metal"]
    with pytest.raises(UserInputError, match=r"targets\.stress: .* not yet trained on; leave it out"):
        build_tasks(TrainConfig.model_validate(config | {"targets": {"stress": {}}}), collection)


def test_real_frames(tmp_path):
    targets = {"energy": TARGETS["energy"], "force": TARGETS["force"], "stress": TARGETS["stress"]}
    source = open_source(shared_data("extxyz"), tmp_path, targets=targets)
    assert len(source) == 2000
    for each in source.read(990, 1010):
        assert each.fault(source.targets) is None
        assert set(each.targets) == set(targets)


def test_a_real_compressed_file(tmp_path):
    targets = {"formation_energy": {"key": "formation_energy_per_atom", "unit": "eV/atom"}}
    source = open_source(
        shared_data("mp_megnet2018.extxyz.gz"), tmp_path, targets=targets, id_key="material_id", split_key="split"
    )
    assert len(source) == 51_149
    assert source.splits == ("test", "train", "val")
    assert not source.doubled
    (first,) = source.read(0, 1)
    assert (first.id, first.split, first.targets) == ("mp-10", "train", {"formation_energy": 0.107405})
    assert len(pickle.dumps(source)) < 100_000


def test_a_target_where_records_have_no_keys_at_all(tmp_path):
    (tmp_path / "a.xyz").write_text('1\nLattice="3 0 0 0 3 0 0 0 3"\nCu 0 0 0\n' * 3)
    with pytest.raises(UserInputError, match=r"no input has anything under 'gap' \(target energy\); there are no keys"):
        open_source(tmp_path / "a.xyz", tmp_path, targets={"energy": {"key": "gap"}})


@pytest.mark.parametrize("before", ["", '1\nLattice="3 0 0 0 3 0 0 0 3" id=k\nCu 0 0 0\n'], ids=["first", "later"])
def test_an_id_belongs_to_the_first_that_has_it_usable_or_not(before, tmp_path):
    frames = "".join(f'1\nLattice="3 0 0 0 3 0 0 0 3" id=x\n{symbol} 0 0 0\n' for symbol in ("Qq", "Cu"))
    (tmp_path / "a.xyz").write_text(before + frames)
    number = before.count("Cu")
    *_, damaged, other = read_all(open_source(tmp_path / "a.xyz", tmp_path, id_key="id"))
    assert isinstance(damaged, Rejected)
    assert other.reason == f"the id x is that of input {number} already, whether that one is usable or not"
