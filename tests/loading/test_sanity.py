"""What preparation never lets through is named when it turns up in a shard all the same."""

import shutil

import numpy as np
import pytest
from crystal_data import prepare_crystals
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_edits import edit_shard

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.loader import Cursor, Division, Loader
from matsci_hpc.loading.plan import Plan
from matsci_hpc.loading.sanity import checked_batch, coincident_atoms, refuse_absurd
from matsci_hpc.loading.spec import PlanSpec
from matsci_hpc.shards.verify import verify
from matsci_hpc.structure import MIN_DISTANCE

ROW = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"), count=24)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


def put(name, value, place=0):
    """Overwrite one atom of the row, counted from its first."""

    def change(arrays):
        arrays[name][arrays["offsets/atoms"][ROW] + place] = value

    return change


def on_top(arrays):
    """The second atom where an image of the first is."""
    first = arrays["offsets/atoms"][ROW]
    image = np.array([1, -1, 2]) @ arrays["structures/cell"][ROW].astype(float)
    arrays["atoms/position"][first + 1] = arrays["atoms/position"][first] + image + [0.0, 0.004, 0.0]


def cell(arrays):
    arrays["structures/cell"][ROW, 1, 2] = np.inf


def sender(arrays):
    arrays["edges/sender"][arrays["offsets/edges"][ROW] + 3] = 200


def degree(arrays):
    first = arrays["offsets/atoms"][ROW]
    arrays["atoms/degree"][first] += 1
    arrays["atoms/degree"][arrays["offsets/atoms"][ROW + 1]] -= 1


DAMAGE = {
    "not a number": (put("atoms/position", [0, np.nan, 0], 1), r"atom 1 is at \[0.0, nan, 0.0\] angstrom"),
    "infinite": (put("atoms/position", [np.inf, 0, 0]), r"atom 0 is at \[inf"),
    "far away": (put("atoms/position", [0, 0, -3e7]), r"atom 0 is at \[0.0, 0.0, -30000000.0\]"),
    "cell": (cell, r"the cell is \[\[.*inf.* angstrom"),
    "no element": (put("atoms/atomic_number", 0), r"atomic number 0, outside 1\.\.118"),
    "unknown element": (put("atoms/atomic_number", 119, 1), r"atomic number 119, outside 1\.\.118"),
    "sender": (sender, "the sender of an edge is not one of its atoms"),
    "degree": (degree, "the degrees of its atoms do not add up to its edges"),
    "on top": (on_top, r"atoms 0 and 1 are 0\.00[34]\d angstrom apart"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(folder, change, message):
    whole = checked_batch(Collection([folder]), np.arange(24))
    edit_shard(folder, 0, change)
    assert verify(folder) == []  # checksums fit, so it is for loading to see it
    collection = Collection([folder])
    name = rf"data/shard-00000\.h5 row {ROW} \(.*crystal-\d+\): {message}"
    with pytest.raises(MachineError, match=name) as caught:
        checked_batch(collection, np.arange(24))
    assert "\n" not in str(caught.value)
    others = np.delete(np.arange(24), ROW)
    if change is not degree:  # that one also breaks the sample after it
        assert checked_batch(collection, others).edges == whole.edges - int(collection.edges(np.array([ROW]))[0])


def test_an_empty_graph_is_named(folder):
    """Index and shard agree that a sample has no atoms: no preparation writes that."""
    collection = Collection([folder])
    batch = collate(collection, np.arange(3))
    batch.atom_pointer[2] = batch.atom_pointer[1]

    with pytest.raises(MachineError, match=r"row 1 \(.*\): no atoms"):
        refuse_absurd(collection, batch)


def test_the_loader_looks_by_default(folder):
    edit_shard(folder, 0, put("atoms/position", np.nan))
    collection = Collection([folder])
    split = next(each for each in ("train", "val") if ROW in collection.in_split(each))
    plan = Plan(collection, PlanSpec(1, split, graphs=24))
    with (
        Loader(collection, plan, Cursor(0, 0, 0), 1, Division(0, 1), CostModel()) as loader,
        pytest.raises(MachineError, match=f"row {ROW} "),
    ):
        next(iter(loader))


def test_sizes_that_differ_from_the_index_are_named(folder):
    def shift(arrays):
        arrays["offsets/atoms"][ROW + 1] += 1

    edit_shard(folder, 0, shift)
    with pytest.raises(MachineError, match=rf"row {ROW} .*the shard and the index disagree"):
        collate(Collection([folder]), np.array([ROW]))


def test_arrays_shorter_than_their_offsets_are_damage(folder):
    def cut(arrays):
        arrays["atoms/position"] = arrays["atoms/position"][:-1]

    edit_shard(folder, 0, cut)
    with pytest.raises(MachineError, match=r"shard-00000\.h5: damaged; `matsci-hpc shards verify"):
        collate(Collection([folder]), np.arange(16))


@st.composite
def crowds(draw):
    """Graphs of atoms on coarse grids of any lattice, some atoms pushed next to an image of another."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    positions, graphs, cells = [], [], []
    for g in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["cloud", "cubic", "skewed", "slab"]))
        atoms = draw(st.integers(1, 12))
        cell = 4.0 * np.eye(3)
        if kind == "skewed":
            cell += random.uniform(-1.5, 1.5, (3, 3))
        if kind == "slab":
            cell[2] = 0.0
        spread = np.where(cell.any(axis=1), 1.0, 0.0)
        position = random.integers(0, 5, (atoms, 3)) / 5 @ (4.0 * np.eye(3) if kind == "slab" else cell)
        position += random.normal(0, draw(st.sampled_from([0.0, 0.003, 0.1])), (atoms, 3))
        if kind != "cloud":
            position += (random.integers(-2, 3, (atoms, 3)) * spread) @ cell
        positions.append(position)
        graphs.append(np.full(atoms, g, dtype=np.int32))
        cells.append(np.zeros((3, 3)) if kind == "cloud" else cell)
    return np.concatenate(positions), np.concatenate(graphs), np.stack(cells)


def nearest_pair(position, graph, cell):
    """By brute force, over all pairs and images."""
    steps = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3), axis=-1).reshape(-1, 3)
    best = np.inf
    for i in range(len(position)):
        for j in range(i + 1, len(position)):
            if graph[i] == graph[j]:
                vectors = position[j] - position[i] + steps @ cell[graph[i]]
                best = min(best, float(np.linalg.norm(vectors, axis=1).min()))
    return best


@given(crowds())
@settings(max_examples=150, deadline=None)
def test_coincidence_is_what_brute_force_finds(crowd):
    found, distance = coincident_atoms(*crowd), nearest_pair(*crowd)
    if abs(distance - MIN_DISTANCE) < 1e-9:
        return
    assert (found is not None) == (distance < MIN_DISTANCE)
    if found is not None:
        graph = crowd[1]
        assert found[2] >= distance - 1e-9
        assert graph[found[0]] == graph[found[1]]
