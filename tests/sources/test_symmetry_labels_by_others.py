"""Labels of generated clouds against pymatgen's `PointGroupAnalyzer`; `pytest -s` shows the table by class."""

import itertools

import numpy as np
import pytest
from pymatgen.core import Molecule
from pymatgen.symmetry.analyzer import PointGroupAnalyzer
from symmetry_detector import count_isometries

from matsci_hpc import point_groups
from matsci_hpc.sources.cloud_generator import CloudGenerator
from matsci_hpc.sources.cloud_settling import LABEL_TOLERANCE

EVERY = point_groups.all_groups(12)
PER_CLASS = 3


def analysed(number, position):
    """The Schoenflies symbol that pymatgen finds.

    Its usual tolerances are those of measured molecules, 0.3 angstrom, where our atoms are 0.05 apart. At 0.005 it
    calls some D12h a D24h and some D10 a D10h: the greater symmetry, which they miss by that little. Moments of inertia
    that are equal by symmetry are so to 1e-6, and those of a cloud that is a symmetric top by chance should not be.
    """
    molecule = Molecule([int(each) for each in number], np.asarray(position, dtype=float))
    return PointGroupAnalyzer(molecule, tolerance=LABEL_TOLERANCE, eigen_tolerance=1e-4).sch_symbol


def clouds(names, max_atoms, per_class):
    """Atomic numbers and positions of so many clouds of every class, with the class."""
    generator = CloudGenerator(names, seed=2026, max_atoms=max_atoms, max_orbits=6, min_distance=0.05, jitter=0.0)
    left = dict.fromkeys(names, per_class)
    for number in itertools.count():
        block = generator.block("labels", number)
        for sample, group in enumerate(block.point_group):
            if left[names[group]]:
                left[names[group]] -= 1
                atoms = slice(block.offset[sample], block.offset[sample + 1])
                yield names[group], block.atomic_number[atoms], block.position[atoms]
        if not any(left.values()):
            return


def test_pymatgen_finds_the_labels():
    """Every axial group up to order 12, the cubic ones and the icosahedral ones; Ih needs 120 atoms for an orbit.

    Where pymatgen says otherwise the table shows what the brute-force detector says. spglib is not asked: clouds are
    turned at random, and it knows axes along lattice vectors alone (`test_point_groups.py` asks it).
    """
    small = tuple(name for name in EVERY if point_groups.minimum_atoms(name) <= 60)
    large = tuple(name for name in EVERY if name not in small)
    rows = {name: [] for name in EVERY}
    for label, number, position in itertools.chain(clouds(small, 60, PER_CLASS), clouds(large, 120, 1)):
        found = analysed(number, position)
        by_force = None if found == label else count_isometries(position, number)
        rows[label].append((found, by_force))
    print("\nclass  order  clouds  pymatgen agrees  otherwise: symbol, isometries by brute force")
    for name, results in rows.items():
        others = [each for each in results if each[0] != name]
        shown = "; ".join(f"{found}, {count}" for found, count in others)
        print(f"{name:5} {point_groups.order(name):6} {len(results):7} {len(results) - len(others):16}  {shown}")
    assert all(len(results) == (PER_CLASS if name in small else 1) for name, results in rows.items())
    wrong = [(name, *each) for name in EVERY for each in rows[name] if each[0] != name]
    assert wrong == []


@pytest.mark.parametrize(
    ("made_by", "symmetry"),
    [("C4v", "D4h"), ("C3h", "D3h"), ("C5", "D5h"), ("S4", "D2d"), ("D2h", "D2h"), ("Td", "Td")],
)
def test_it_sees_what_one_orbit_has_beyond_its_group(made_by, symmetry):
    """The fault of generators that take one seed: a polygon, a prism or a disphenoid, whatever the group was."""
    seed = np.array([0.31, 0.52, 0.77])
    if made_by == "C4v":
        seed[1] = 0.0  # on a mirror: a square
    position = np.unique((point_groups.matrices(made_by) @ seed).round(9), axis=0)
    number = np.full(len(position), 6)
    assert analysed(number, position) == symmetry
    assert count_isometries(position, number) == point_groups.order(symmetry)
