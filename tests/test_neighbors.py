import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from matsci_hpc.neighbors import TIE_TOLERANCE, NeighborError, radius_graph
from matsci_hpc.structure import Structure

PERIODIC = (True, True, True)


def make(position, cell, pbc=PERIODIC):
    position = np.asarray(position, dtype=np.float32).reshape(-1, 3)
    numbers = np.ones(len(position), dtype=np.uint8)
    return Structure("x", numbers, position, np.asarray(cell, dtype=np.float32), np.array(pbc, dtype=bool))


def edge_list(structure, cutoff):
    edges = radius_graph(structure, cutoff)
    receiver = np.repeat(np.arange(len(edges.degree)), edges.degree)
    shift = edges.shift.tolist()
    return [(int(i), int(j), *s) for i, j, s in zip(receiver, edges.sender, shift, strict=True)]


def brute_force(structure, cutoff):
    """Every pair and image far enough to be sure, one distance at a time."""
    position = structure.position.astype(np.float64)
    cell = structure.cell.astype(np.float64)
    reach = np.zeros(3, dtype=int)
    for axis in np.flatnonzero(structure.pbc):
        others = [cell[k] if structure.pbc[k] else None for k in range(3) if k != axis]
        # Height of the cell over the span of the other periodic vectors.
        basis = np.array([v for v in others if v is not None]).reshape(-1, 3)
        perpendicular = cell[axis] - (
            basis.T @ np.linalg.lstsq(basis.T, cell[axis], rcond=None)[0] if len(basis) else 0
        )
        spread = np.ptp(position @ perpendicular) / (perpendicular @ perpendicular)
        reach[axis] = int(np.ceil(cutoff / np.linalg.norm(perpendicular) + spread)) + 1
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        for i, j in itertools.product(range(len(position)), repeat=2):
            if i == j and not any(shift):
                continue
            if np.linalg.norm(position[j] - position[i] + shift @ cell) <= cutoff + TIE_TOLERANCE:
                found.append((i, j, *shift))
    return sorted(found)


def check(structure, cutoff):
    found = edge_list(structure, cutoff)
    assert found == brute_force(structure, cutoff)  # equal as lists: none twice, and in the promised order
    return found


CELLS = {
    "cubic": np.eye(3) * 5.0,
    "smaller than the cutoff": np.diag([1.7, 2.1, 2.9]),
    "skewed": [[4.0, 0, 0], [3.8, 1.9, 0], [3.1, 1.2, 2.4]],
    "obtuse": [[4.0, 0, 0], [-3.0, 3.0, 0], [-1.5, -1.5, 4.0]],
    "left-handed": [[0, 4.0, 0], [4.5, 0, 0], [0, 1.0, 5.0]],
    "needle": np.diag([1.5, 1.5, 30.0]),
    "skewed beyond its length": [[3.0, 0, 0], [30.5, 3.0, 0], [0, -9.0, 3.5]],
}


@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_brute_force(cell, pbc):
    rng = np.random.default_rng(3)
    position = rng.uniform(-0.4, 1.6, size=(4, 3)) @ np.asarray(cell)  # inside and outside the cell
    check(make(position, cell, pbc), 4.2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    atoms=st.integers(1, 6),
    cutoff=st.floats(0.3, 5.0),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_brute_force_on_anything(seed, atoms, cutoff, pbc):
    rng = np.random.default_rng(seed)
    cell = rng.normal(scale=3.0, size=(3, 3))
    if abs(np.linalg.det(cell)) < 8.0:
        cell += 6.0 * np.eye(3)
    structure = make(rng.uniform(-2, 3, size=(atoms, 3)) @ cell, cell, pbc)
    try:
        found = check(structure, cutoff)
    except NeighborError as error:
        assert "apart" in str(error) or "images" in str(error)  # noqa: PT017 - either answer is right by its own check
        return
    assert {(j, i, -x, -y, -z) for i, j, x, y, z in found} == set(found)


def test_slab_without_a_third_vector():
    cell = [[3.0, 0, 0], [0.5, 3.0, 0], [0, 0, 0]]
    found = check(make([[0, 0, 0], [1, 1, 2], [9, 9, -1]], cell, (True, True, False)), 4.0)
    assert not any(z for *_, z in found)


def test_chain_without_other_vectors():
    found = check(make([[0, 0, 0], [1, 1, 2]], [[0, 0, 0], [0, 2.5, 0], [0, 0, 0]], (False, True, False)), 4.0)
    assert {y for *_, y, _ in found} == {-1, 0, 1}


@pytest.mark.parametrize("shape", ["parallel", "almost parallel", "zero", "huge"])
@pytest.mark.parametrize("pbc", [each for each in itertools.product([True, False], repeat=3) if any(each)][1:])
def test_vectors_that_do_not_repeat_never_count(pbc, shape):
    """Also where atoms are far apart along them."""
    repeats = np.array(pbc)
    rng = np.random.default_rng(5)
    cell = np.array([[3.0, 0.2, 0], [0.4, 3.1, 0], [0.5, -0.3, 2.8]])
    position = np.concatenate([rng.uniform(-1, 2, (4, 3)), rng.uniform(-1, 2, (2, 3)) * 40, [[70, 60, -90]]])
    expected = check(make(position, cell, pbc), 4.0)
    along = cell[repeats].sum(axis=0)
    given = {"parallel": along, "almost parallel": along + 1e-7, "zero": 0 * along, "huge": 1e6 * along + 1}[shape]
    assert check(make(position, np.where(repeats[:, None], cell, given), pbc), 4.0) == expected


def test_molecule_needs_no_cell():
    rng = np.random.default_rng(0)
    found = check(make(rng.uniform(-4, 4, size=(12, 3)), np.zeros((3, 3)), (False, False, False)), 3.0)
    assert found
    assert not any(any(shift) for _, _, *shift in found)


def test_isolated_atoms():
    assert edge_list(make([[0, 0, 0]], np.zeros((3, 3)), (False, False, False)), 5.0) == []
    assert edge_list(make([[0, 0, 0]], np.eye(3) * 9), 5.0) == []
    edges = radius_graph(make([[0, 0, 0], [50, 0, 0], [51, 0, 0]], np.eye(3) * 200), 3.0)
    assert edges.degree.tolist() == [0, 1, 1]
    assert edges.shift.shape == (2, 3)


def test_types_and_order():
    edges = radius_graph(make([[0, 0, 0], [1.5, 0, 0]], np.eye(3) * 3), 3.5)
    assert (edges.degree.dtype, edges.sender.dtype, edges.shift.dtype) == (np.uint16, np.int64, np.int8)
    assert edges.degree.sum() == len(edges.sender) == len(edges.shift)


SIMPLE = np.eye(3)
FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / np.sqrt(2)
BCC = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / np.sqrt(3)
SHELLS = [
    # lattice with nearest neighbours at 1, radius of a shell, edges of an atom up to and with that shell
    pytest.param(SIMPLE, 1.0, 6, id="cubic 1"),
    pytest.param(SIMPLE, np.sqrt(2), 18, id="cubic 2"),
    pytest.param(SIMPLE, 3.0, 122, id="cubic 9"),
    pytest.param(FCC, 1.0, 12, id="fcc 1"),
    pytest.param(FCC, np.sqrt(2), 18, id="fcc 2"),
    pytest.param(FCC, 2.0, 54, id="fcc 4"),
    pytest.param(BCC, 1.0, 8, id="bcc 1"),
]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("lattice", "radius", "neighbours"), SHELLS)
def test_shell_at_the_cutoff_is_taken_whole(lattice, radius, neighbours, seed):
    rng = np.random.default_rng(seed)
    spacing = (3.0, 4.0, 2.87, 5.6, 6.0, 3.61)[seed]
    turn = Rotation.random(random_state=seed).as_matrix() if seed else np.eye(3)
    cell = lattice @ turn * spacing
    repeat = np.array(list(itertools.product(range(2), repeat=3)))
    position = repeat @ cell + rng.uniform(-20, 20, size=3)
    cutoff = float(radius * spacing)
    edges = radius_graph(make(position, 2 * cell), cutoff)
    assert edges.degree.tolist() == [neighbours] * 8
    # A cutoff below the shell by more than the tolerance takes none of it.
    assert (radius_graph(make(position, 2 * cell), cutoff - 3e-4).degree < neighbours).all()


COINCIDENT = [
    pytest.param([[0, 0, 0], [0, 0, 0]], "atoms 0 and 1", id="same place"),
    pytest.param([[1, 1, 1], [2, 2, 2], [1, 1, 1.009]], "atoms 0 and 2", id="almost"),
    pytest.param([[0, 0, 0], [4, 0, 0]], "atoms 0 and 1", id="through the boundary"),
    pytest.param([[0.1, 0, 0], [-8 + 0.1, 12, 4]], "atoms 0 and 1", id="many cells away"),
]


@pytest.mark.parametrize(("position", "who"), COINCIDENT)
def test_coincident_atoms(position, who):
    with pytest.raises(NeighborError, match=f"{who} are 0.0.* angstrom apart"):
        radius_graph(make(position, np.eye(3) * 4), 3.0)


ENDLESS = [
    pytest.param([[0, 0, 0]], np.eye(3) * 0.02, PERIODIC, "65,535 neighbours", id="pinhole cell"),
    pytest.param([[0, 0, 0]], np.eye(3) * 0.1, PERIODIC, "65,535 neighbours", id="tiny cell"),
    pytest.param([[0, 0, 0]], [[0.03, 0, 0], [0, 90, 0], [0, 0, 90]], PERIODIC, "127", id="thin cell"),
    pytest.param([[0, 0, 0]], [[3, 0, 0], [3e3, 3, 0], [0, 3e3, 3]], PERIODIC, "skewed", id="skewed cell"),
    pytest.param([[0, 0, 0], [4e9, 0, 0]], np.eye(3) * 4, PERIODIC, "spread", id="a billion cells away"),
    pytest.param([[0, 0, 0], [1e5, 1e5, 1e5]], np.zeros((3, 3)), (False,) * 3, "spread", id="molecule blown up"),
    pytest.param([[0, 0, 0], [4e4, 3, 1e3]], np.diag([5e4, 3, 4e3]), PERIODIC, "spread", id="cell blown up"),
    pytest.param([[0, 0, 0], [1e30, 1e30, 1e30]], np.zeros((3, 3)), (False,) * 3, "spread", id="beyond counting"),
]


@pytest.mark.parametrize(("position", "cell", "pbc", "reason"), ENDLESS)
def test_damage_that_would_take_all_memory_is_refused(position, cell, pbc, reason):
    with pytest.raises(NeighborError, match=reason):
        radius_graph(make(position, cell, pbc), 6.0)
