"""Splits by the reduced formula of a sample."""

import re
import tarfile

import numpy as np
import pytest
from crystals import write_crystals
from preparation import data_set
from pydantic import ValidationError
from pymatgen.core import Composition, Element
from ranks import ROOT

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.splits import reduced_formula, split_of

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
REAL = ROOT.parent / "shared/data/3dsc_cifs.tar.gz"


@pytest.mark.parametrize("seed", range(30))
def test_formulas_against_pymatgen(seed):
    rng = np.random.default_rng(seed)
    elements = rng.integers(1, 104, size=3)
    atoms = np.repeat(elements, rng.integers(1, 5, size=3) * rng.integers(1, 7)).astype(np.uint8)
    reference = Composition.from_dict(dict(zip(*np.unique(atoms, return_counts=True), strict=True)))
    counts, _ = reference.get_integer_formula_and_factor(), None
    reduced = Composition(counts[0])
    expected = " ".join(f"{e.Z}:{round(n)}" for e, n in sorted(reduced.items(), key=lambda pair: pair[0].Z))
    assert reduced_formula(rng.permutation(atoms)) == expected
    assert reduced_formula(np.repeat(atoms, 6)) == expected
    assert all(isinstance(element, Element) for element in reduced)


def formulas(data):
    """Split and reduced formula of every sample, by its id."""
    found = {}
    for number in range(len(data.manifest.shards)):
        arrays = data.shard(number)
        for row, identifier in enumerate(arrays["structures/id"].tolist()):
            atoms = arrays["atoms/atomic_number"][slice(*arrays["offsets/atoms"][row : row + 2])]
            found[identifier] = list(data.manifest.splits)[arrays["structures/split"][row]], reduced_formula(atoms)
    return found


def made(path, out, **more):
    settings = {"shard_size": 16, "neighbors": {"cutoff": 4.0}, "splits": SHARES, "split_by": "formula"} | more
    prepare(PrepConfig(source={"kind": "cif", "path": path}, out=out, **settings), World())
    return DataSet(out)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """600 real crystals, the formula of each of which another one has too."""
    if not REAL.is_file():
        pytest.skip(f"needs {REAL}")
    with tarfile.open(REAL) as archive:
        texts = {m.name: archive.extractfile(m).read() for m in archive if m.isfile() and m.name.endswith(".cif")}
    same = {}
    for name in sorted(texts):
        same.setdefault(re.search(rb"_chemical_formula_structural +(.*)", texts[name])[1], []).append(name)
    recurring = [name for group in same.values() if len(group) > 1 for name in group]
    folder = tmp_path_factory.mktemp("real")
    for name in recurring[:600]:
        (folder / name.replace("/", "-")).write_bytes(texts[name])
    return folder


def test_no_formula_in_two_splits(real, tmp_path):
    data = made(real, tmp_path / "out", neighbors={"cutoff": 3.0})
    splits = {}
    for split, formula in formulas(data).values():
        splits.setdefault(formula, set()).add(split)
    assert len(splits) < 0.6 * len(data.index), "formulas hardly recur, so nothing was tested"
    assert {len(each) for each in splits.values()} == {1}
    for split, share in SHARES.items():
        assert abs(data.manifest.splits[split] / len(data.index) - share) < 0.06
    by_id = made(real, tmp_path / "by_id", neighbors={"cutoff": 3.0}, split_by="id")
    scattered = {}
    for split, formula in formulas(by_id).values():
        scattered.setdefault(formula, set()).add(split)
    assert max(len(each) for each in scattered.values()) > 1


def test_other_samples_and_shard_sizes_change_nothing(tmp_path):
    write_crystals(tmp_path / "all", 60)
    write_crystals(tmp_path / "some", 20)
    found = formulas(made(tmp_path / "all", tmp_path / "a"))
    assert found == formulas(made(tmp_path / "all", tmp_path / "b", shard_size=7))
    fewer = formulas(made(tmp_path / "some", tmp_path / "c"))
    assert len(fewer) == 20
    assert fewer.items() <= found.items()
    assert all(split == split_of(formula, SHARES) for split, formula in found.values())


def test_the_shares_of_formulas():
    found = [
        split_of(reduced_formula(np.array([a, b, b], dtype=np.uint8)), SHARES)
        for a in range(1, 80)
        for b in range(1, 80)
    ]
    for split, share in SHARES.items():
        assert abs(found.count(split) / len(found) - share) < 0.02


def test_by_id_is_the_default_and_leaves_data_sets_as_they_were(tmp_path):
    write_crystals(tmp_path / "all", 20)
    made(tmp_path / "all", tmp_path / "out", split_by="id")
    before = data_set(tmp_path / "out")
    made(tmp_path / "all", tmp_path / "out", split_by="id")
    assert data_set(tmp_path / "out") == before
    with pytest.raises(UserInputError, match="made from another input or config"):
        made(tmp_path / "all", tmp_path / "out")


def test_clouds_have_no_formula(tmp_path):
    with pytest.raises(ValidationError, match="clouds have no chemistry"):
        PrepConfig(
            source={"kind": "symmetry", "samples": 5},
            out=tmp_path / "out",
            neighbors={"cutoff": 6.0},
            split_by="formula",
        )
