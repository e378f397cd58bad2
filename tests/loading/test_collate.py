import h5py
import numpy as np
import pytest
import torch
from crystal_data import prepare_crystals

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.models.egnn import image_shift


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="module")
def collection(folder):
    return Collection([folder])


def read_one(folder, collection, sample):
    """A sample read plainly with h5py: the independent way that collate must agree with."""
    index = collection.datasets[0].index
    shard = collection.datasets[0].manifest.shards[index.shard[sample]]
    row = int(index.row[sample])
    with h5py.File(folder / shard.file) as file:
        a, b = file["offsets/atoms"][row : row + 2]
        c, d = file["offsets/edges"][row : row + 2]
        degree = file["atoms/degree"][a:b]
        return {
            "atomic_number": file["atoms/atomic_number"][a:b],
            "position": file["atoms/position"][a:b],
            "sender": file["edges/sender"][c:d].astype(int),
            "receiver": np.repeat(np.arange(b - a), degree),
            "image": file["edges/shift"][c:d],
            "cell": file["structures/cell"][row],
            "gap": file["targets/gap"][row],
            "family": file["targets/family"][row],
        }


@pytest.mark.parametrize("samples", [[0], [3, 17, 18, 40], list(range(60)), [59], [4, 4, 5, 20, 20, 20, 21]])
def test_collate_equals_reading_one_by_one(folder, collection, samples):
    batch = collate(collection, np.array(samples))
    assert batch.graphs == len(samples)
    first_atom, first_edge = 0, 0
    for g, sample in enumerate(samples):
        one = read_one(folder, collection, sample)
        atoms = slice(first_atom, first_atom + len(one["atomic_number"]))
        edges = slice(first_edge, first_edge + len(one["sender"]))
        assert batch.atom_pointer[g] == first_atom
        assert (batch.atom_graph[atoms] == g).all()
        np.testing.assert_array_equal(batch.atomic_number[atoms], one["atomic_number"])
        np.testing.assert_array_equal(batch.position[atoms], one["position"])
        np.testing.assert_array_equal(batch.sender[edges] - first_atom, one["sender"])
        np.testing.assert_array_equal(batch.receiver[edges] - first_atom, one["receiver"])
        np.testing.assert_array_equal(batch.edge_image[edges], one["image"])
        np.testing.assert_array_equal(batch.cell[g], one["cell"])
        assert bool(batch.present["gap"][g]) == (not np.isnan(one["gap"]))
        if not np.isnan(one["gap"]):
            assert batch.targets["gap"][g] == one["gap"]
        assert bool(batch.present["family"][g]) == (one["family"] >= 0)
        assert batch.targets["family"][g] == max(one["family"], 0)
        first_atom, first_edge = atoms.stop, edges.stop
    assert batch.atoms == first_atom
    assert batch.edges == first_edge
    counts = torch.bincount(batch.receiver, minlength=batch.atoms)
    assert torch.equal(batch.edge_pointer[1:] - batch.edge_pointer[:-1], counts)


def test_edges_are_as_long_as_the_cutoff_allows(collection):
    batch = collate(collection, np.arange(60))
    vector = batch.position[batch.sender] + image_shift(batch) - batch.position[batch.receiver]
    assert float(vector.norm(dim=1).max()) <= 4.0 + 2e-4
    assert float(vector.norm(dim=1).min()) > 0.5


def test_empty_batch_has_the_fields_of_a_full_one(collection):
    empty, full = collate(collection, np.empty(0, dtype=np.int64)), collate(collection, np.arange(3))
    assert empty.graphs == empty.atoms == empty.edges == 0
    for name in ("atomic_number", "position", "cell", "sender", "receiver", "atom_graph", "edge_pointer"):
        assert getattr(empty, name).dtype == getattr(full, name).dtype
    assert empty.targets.keys() == full.targets.keys()


def test_several_data_sets_are_one_sequence(folder, tmp_path):
    other = prepare_crystals(tmp_path, count=20)
    both = Collection([folder, other])
    assert len(both) == 80
    alone = collate(Collection([other]), np.array([4, 11]))
    joined = collate(both, np.array([2, 64, 71]))
    start = int(joined.atom_pointer[1])
    assert torch.equal(joined.position[start:], alone.position)
    merged = both.statistics("train", "gap")
    values = [d.shard(s)["targets/gap"] for d in both.datasets for s in range(len(d.manifest.shards))]
    splits = np.concatenate([d.index.split for d in both.datasets])
    train = np.concatenate(values)[splits == 0].astype(float)
    train = train[~np.isnan(train)]
    assert merged.count == len(train)
    assert merged.mean == pytest.approx(train.mean(), rel=1e-12)
    assert merged.std == pytest.approx(train.std(), rel=1e-12)


def test_data_sets_of_different_cutoffs_do_not_mix(folder, tmp_path):
    other = prepare_crystals(tmp_path, count=8, cutoff=3.0)
    with pytest.raises(UserInputError, match="different cutoffs"):
        Collection([folder, other])


def test_unknown_split_names_the_known_ones(collection):
    with pytest.raises(UserInputError, match="train, val"):
        collection.in_split("trian")


def test_a_truncated_shard_is_named(tmp_path):
    other = prepare_crystals(tmp_path, count=8)
    shard = other / "shard-00000.h5"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(MachineError, match=r"shard-00000\.h5.*expected"):
        collate(Collection([other]), np.array([0]))
