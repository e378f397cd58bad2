"""Edges found while loading are the ones that preparation stores."""

import shutil

import numpy as np
import pytest
import torch
from crystal_data import prepare_crystals
from preparation import run_program
from shard_edits import edit_shard, strip_edges

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.sanity import checked_batch

FIELDS = ("position", "cell", "sender", "receiver", "edge_pointer", "atom_pointer")


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    return prepare_crystals(tmp_path_factory.mktemp("crystals"))


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouds")
    config = folder / "prep.yaml"
    config.write_text(
        f"source: {{kind: symmetry, samples: 40}}\nout: {folder}/data\nshard_size: 16\nneighbors: {{cutoff: 2.0}}\n"
    )
    assert run_program("prep", config).returncode == 0
    return folder / "data"


@pytest.mark.parametrize("kind", ["crystals", "clouds"])
@pytest.mark.parametrize("samples", [[3], [0, 1, 2, 20, 20, 39], range(40)], ids=["one", "some", "all"])
def test_found_edges_are_the_stored_ones(kind, samples, request, tmp_path):
    folder, numbers = request.getfixturevalue(kind), np.array(list(samples))
    bare = shutil.copytree(folder, tmp_path / "bare")
    strip_edges(bare)
    stored, found = checked_batch(Collection([folder]), numbers), checked_batch(Collection([bare]), numbers)
    for name in FIELDS:
        assert getattr(stored, name).dtype == getattr(found, name).dtype
        assert torch.equal(getattr(stored, name), getattr(found, name))
    assert (stored.edge_image is None) == (kind == "clouds")
    if stored.edge_image is None:
        assert found.edge_image is None
    else:
        assert torch.equal(stored.edge_image, found.edge_image)


def test_stored_and_found_edges_in_one_batch(crystals, tmp_path):
    mixed = shutil.copytree(crystals, tmp_path / "mixed")

    def strip(arrays):
        for name in ("edges/sender", "edges/shift", "atoms/degree", "offsets/edges"):
            arrays.pop(name)

    edit_shard(mixed, 1, strip)
    stored, found = (collate(Collection([folder]), np.arange(60)) for folder in (crystals, mixed))
    assert torch.equal(stored.sender, found.sender)
    assert torch.equal(stored.edge_image, found.edge_image)


def test_structures_that_preparation_would_refuse_are_named(crystals, tmp_path):
    bare = shutil.copytree(crystals, tmp_path / "bare")
    strip_edges(bare)
    edit_shard(bare, 0, lambda arrays: arrays["atoms/position"].__setitem__(arrays["offsets/atoms"][4], np.nan))
    with pytest.raises(MachineError, match=r"shard-00000\.h5 row 4 \(.*\): a position is not a finite number"):
        collate(Collection([bare]), np.arange(10))


def test_another_number_of_edges_than_in_the_index_is_named(crystals, tmp_path):
    bare = shutil.copytree(crystals, tmp_path / "bare")
    strip_edges(bare)
    edit_shard(bare, 0, lambda arrays: arrays["structures/cell"].__setitem__(2, 9 * np.eye(3)))
    with pytest.raises(MachineError, match=r"row 2 \(.*\): \d+ edges found, the index says \d+"):
        collate(Collection([bare]), np.arange(10))
