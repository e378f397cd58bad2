"""Edges against those of ASE, matscipy and vesin, which were written by others."""

import gzip
import io
import itertools
import random
import tarfile
from pathlib import Path

import ase
import ase.build
import matscipy.neighbours
import numpy as np
import pytest
import vesin
from ase.neighborlist import primitive_neighbor_list

from matsci_hpc.neighbors import TIE_TOLERANCE, radius_graph
from matsci_hpc.sources.cif import parse_cif
from matsci_hpc.structure import Structure

ARCHIVE = Path(__file__).parents[1].parent / "shared/data/matbench_mp_gap/cifs.tar.gz"
EXTXYZ = ARCHIVE.parents[1] / "extxyz"
MEGNET = ARCHIVE.parents[1] / "mp_megnet2018.extxyz.gz"
PERIODIC = (True, True, True)


def make(position, cell, pbc=PERIODIC):
    position = np.asarray(position, dtype=np.float32).reshape(-1, 3)
    numbers = np.ones(len(position), dtype=np.uint8)
    return Structure("x", numbers, position, np.asarray(cell, dtype=np.float32), np.array(pbc, dtype=bool))


def by_ase(structure, radius):
    cell, position = structure.cell.astype(float), structure.position.astype(float)
    i, j, s = primitive_neighbor_list("ijS", structure.pbc, cell, position, radius, self_interaction=False)
    return i, j, s


def by_matscipy(structure, radius):
    atoms = ase.Atoms(structure.atomic_number, structure.position, cell=structure.cell.astype(float), pbc=structure.pbc)
    return matscipy.neighbours.neighbour_list("ijS", atoms, radius)


def by_vesin(structure, radius):
    search = vesin.NeighborList(cutoff=radius, full_list=True)
    periodic = structure.pbc if structure.pbc.any() else False
    return search.compute(structure.position.astype(float), structure.cell.astype(float), periodic, "ijS")


OTHERS = {"ASE": by_ase, "matscipy": by_matscipy, "vesin": by_vesin}


def check(structure, cutoff, who=tuple(OTHERS)):
    edges = radius_graph(structure, cutoff)
    receiver = np.repeat(np.arange(len(edges.degree)), edges.degree)
    ours = np.column_stack([receiver, edges.sender, edges.shift.astype(np.int64)])
    for name in who:
        i, j, s = OTHERS[name](structure, cutoff + TIE_TOLERANCE)
        theirs = np.column_stack([i, j, s]).astype(np.int64).reshape(-1, 5)
        theirs = theirs[np.lexsort(theirs.T[::-1])]
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    return len(ours)


def random_points(atoms, cell, seed=0, spread=(0.0, 1.0)):
    return np.random.default_rng(seed).uniform(*spread, size=(atoms, 3)) @ np.asarray(cell, dtype=float)


CELLS = {
    "smaller than the cutoff": np.diag([1.9, 2.3, 2.9]),
    "much smaller than the cutoff": np.eye(3) * 1.1,
    "strongly skewed": [[4.0, 0, 0], [3.8, 1.9, 0], [3.1, 1.2, 2.4]],
    "obtuse": [[5.0, 0, 0], [-4.0, 3.0, 0], [-1.5, -1.5, 4.0]],
    "left-handed": [[0, 4.0, 0], [4.5, 0, 0], [0, 1.0, 5.0]],
    "needle": np.diag([2.5, 2.5, 30.0]),
    "large": np.diag([14.0, 15.0, 16.0]),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_cells(cell, seed):
    assert check(make(random_points(5, cell, seed), cell), 6.0)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_atoms_outside_of_the_cell(cell):
    # Others give images from the cell, matscipy wants atoms inside it.
    check(make(random_points(4, cell, 5, spread=(-1.3, 2.4)), cell), 5.0, who=("ASE", "vesin"))


MIXED = list(itertools.product((True, False), repeat=3))[1:-1]


@pytest.mark.parametrize("pbc", MIXED)
def test_slabs_and_wires(pbc):
    cell = [[4.0, 0, 0], [1.0, 4.4, 0], [0, 0, 25.0]]
    assert check(make(random_points(12, cell), cell, pbc), 6.0)


@pytest.mark.parametrize("pbc", MIXED)
@pytest.mark.parametrize("name", ["smaller than the cutoff", "strongly skewed", "obtuse", "left-handed"])
def test_cells_that_do_not_repeat_in_all_directions(name, pbc):
    # An atom may lie outside of the cell where it does not repeat; matscipy moves no atom there.
    cell = np.array(CELLS[name], dtype=float)
    fractions = np.random.default_rng(3).uniform(size=(6, 3))
    fractions[::2, ~np.array(pbc)] += np.array([-0.9, 1.4, 2.2])[:, None]
    assert check(make(fractions @ cell, cell, pbc), 6.0)


@pytest.mark.parametrize("vacuum", [2.0, 12.0])
def test_surfaces(vacuum):
    """An oblique cell of copper with atoms on lattice places: whole shells at equal distance, one at the cutoff."""
    slab = ase.build.fcc111("Cu", (2, 3, 4), vacuum=vacuum, orthogonal=False)
    distances = slab.get_all_distances(mic=True)
    structure = make(slab.positions, slab.cell.array, slab.pbc)
    assert list(slab.pbc) == [True, True, False]
    for cutoff in (6.0, float(distances[0][distances[0] > 0].min())):
        assert check(structure, cutoff)


def test_molecule():
    box = np.eye(3) * 12.0
    assert check(make(random_points(30, box), box, (False,) * 3), 6.0)


@pytest.mark.parametrize("pbc", [PERIODIC, *MIXED, (False,) * 3])
def test_isolated_atoms(pbc):
    box = np.eye(3) * 20.0
    assert check(make([[0, 0, 0]], box, pbc), 6.0) == 0
    assert check(make([[1, 1, 1], [10, 10, 10]], box, pbc), 6.0) == 0
    # One pair among isolated atoms; the third atom is alone.
    assert check(make([[1, 1, 1], [1, 1, 4], [10, 10, 10]], box, pbc), 6.0) == 2


def test_six_hundred_atoms():
    cell = np.diag([24.0, 20.0, 18.0])
    cell[1, 0] = 7.0
    assert check(make(random_points(600, cell), cell), 6.0) > 10_000


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False)])
def test_six_hundred_atoms_of_a_surface(pbc):
    cell = [[24.0, 0, 0], [-11.0, 20.0, 0], [3.0, 2.0, 18.0]]
    assert check(make(random_points(600, cell, 1), cell, pbc), 6.0) > 10_000


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="needs the data in ../shared/data")
def test_real_crystals():
    with tarfile.open(ARCHIVE, "r|gz") as tar:
        texts = []
        for member in tar:
            if member.name.endswith(".cif"):
                texts.append(tar.extractfile(member).read())
            if len(texts) == 3000:
                break
    for number, text in enumerate(random.Random(2).sample(texts, 200)):
        atomic_number, position, cell = parse_cif(text)
        structure = Structure("x", atomic_number, position, cell, np.ones(3, dtype=bool))
        # ASE takes seconds for the largest.
        who = tuple(OTHERS) if len(position) <= 20 and number % 4 == 0 else ("matscipy", "vesin")
        check(structure, 6.0, who)


@pytest.mark.skipif(not MEGNET.is_file(), reason="needs the data in ../shared/data")
def test_a_real_cell_of_six_hundred_atoms():
    from ase.io.extxyz import read_xyz

    with gzip.open(MEGNET, "rt") as file:
        while line := file.readline():
            frame = [line, *itertools.islice(file, int(line) + 1)]
            if int(line) >= 600:
                break
    atoms = next(read_xyz(io.StringIO("".join(frame)), 0))
    assert len(atoms) == 624
    # Inside the cell, as matscipy wants it.
    assert check(make(atoms.get_positions(wrap=True), atoms.cell.array, atoms.pbc), 6.0) > 10_000


@pytest.mark.skipif(not EXTXYZ.is_dir(), reason="needs the data in ../shared/data")
@pytest.mark.parametrize("name", ["mptrj-random-1k.xyz", "alexandria-random-1k.xyz"])
def test_real_snapshots(name):
    from ase.io import iread

    for number, atoms in enumerate(iread(EXTXYZ / name, index=slice(0, 100))):
        structure = Structure(
            str(number),
            atoms.numbers.astype(np.uint8),
            atoms.positions.astype(np.float32),
            atoms.cell.array.astype(np.float32),
            np.asarray(atoms.pbc, dtype=bool),
        )
        check(structure, 6.0, ("vesin",))
