"""What makes a structure unusable, whatever source it came from."""

import re
from dataclasses import replace

import numpy as np
import pytest

from matsci_hpc.structure import Structure

SALT = Structure(
    id="salt",
    atomic_number=np.array([11, 17], dtype=np.uint8),
    position=np.array([[0, 0, 0], [2.82, 2.82, 2.82]], dtype=np.float32),
    cell=np.diag([5.64, 5.64, 5.64]).astype(np.float32),
    pbc=np.ones(3, dtype=bool),
    targets={"gap": 8.5},
)


def changed(array, place, value):
    copy = array.copy()
    copy[place] = value
    return copy


def cell(*rows):
    return np.array(rows, dtype=np.float32)


FAULTS = {
    "empty": ({"atomic_number": np.empty(0, np.uint8), "position": np.empty((0, 3), np.float32)}, "no atoms"),
    "a position too few": ({"position": SALT.position[:1]}, r"2 atoms but positions of shape \(1, 3\)"),
    "position nan": ({"position": changed(SALT.position, (1, 2), np.nan)}, "a position is not a finite number"),
    "position infinite": ({"position": changed(SALT.position, (0, 0), -np.inf)}, "a position is not a finite number"),
    "position far away": ({"position": changed(SALT.position, (1, 0), -3e7)}, "a coordinate beyond 100000 angstrom"),
    "cell nan": ({"cell": changed(SALT.cell, (2, 2), np.nan)}, "a lattice vector is not a finite number"),
    "cell infinite": ({"cell": changed(SALT.cell, (0, 0), np.inf)}, "a lattice vector is not a finite number"),
    "element 0": ({"atomic_number": np.array([0, 17], np.uint8)}, r"atomic number outside 1\.\.118"),
    "element 119": ({"atomic_number": np.array([11, 119], np.uint8)}, r"atomic number outside 1\.\.118"),
    "no lattice": ({"cell": np.zeros((3, 3), np.float32)}, "the lattice vectors span no volume"),
    "vector missing": ({"cell": cell([5, 0, 0], [0, 5, 0], [0, 0, 0])}, "the lattice vectors span no volume"),
    "vectors in a plane": ({"cell": cell([5, 0, 0], [0, 5, 0], [5, 5, 1e-4])}, "the lattice vectors span no volume"),
    "long vector": ({"cell": cell([5, 0, 0], [0, 5, 0], [0, 0, 2e5])}, "a coordinate beyond 100000 angstrom"),
    "nanometres": ({"cell": SALT.cell / 10}, r"an atom has 0\.09 cubic angstrom; are the lengths in angstrom\?"),
    "target nan": ({"targets": {"gap": float("nan")}}, "target gap is not a finite number"),
    "slab of parallel vectors": (
        {"cell": cell([3, 0, 0], [6, 0, 0], [0, 0, 9]), "pbc": np.array([True, True, False])},
        "the lattice vectors span no volume",
    ),
}


def test_a_sound_structure():
    assert SALT.fault() is None


@pytest.mark.parametrize(("changes", "reason"), FAULTS.values(), ids=FAULTS)
def test_faults(changes, reason):
    fault = replace(SALT, **changes).fault()
    assert fault is not None
    assert re.search(reason, fault)
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("vectors", "periodic"),
    [
        (([3, 0, 0], [0, 3, 0], [0, 0, 0]), (True, True, False)),  # a slab, third vector left out
        (([0, 0, 0], [0, 0, 0], [0, 0, 2.5]), (False, False, True)),  # a chain
        (([0, 0, 0], [0, 0, 0], [0, 0, 0]), (False, False, False)),  # a molecule
        (([4, 0, 0], [3.9, 0.8, 0], [0, 0, 4]), (True, True, True)),  # strongly skewed
        (([5, 0, 0], [0, 5, 0], [0, 0, 60]), (True, True, True)),  # much vacuum
    ],
)
def test_unusual_lattices_are_no_fault(vectors, periodic):
    assert replace(SALT, cell=cell(*vectors), pbc=np.array(periodic)).fault() is None
