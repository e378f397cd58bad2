import io
import time

import h5py
import numpy as np
import pytest
from contents import content, sample

from matsci_hpc.neighbors import radius_graph
from matsci_hpc.shards.layout import ALIGNMENT_BYTES, FORMAT_NAME, FORMAT_VERSION, build_content
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.structure import Structure


def test_same_content_same_bytes():
    first = shard_image(content(range(5)))
    time.sleep(1.1)  # HDF5 keeps times in seconds
    assert shard_image(content(range(5))) == first
    assert shard_image(content(range(6))) != first


def test_arrays_can_be_mapped():
    image = shard_image(content(range(20)))
    with h5py.File(io.BytesIO(image)) as file:
        assert (file.attrs["format"], file.attrs["format_version"]) == (FORMAT_NAME, FORMAT_VERSION)
        for group in file.values():
            for dataset in group.values():
                assert dataset.chunks is None
                offset = dataset.id.get_offset()
                assert offset % ALIGNMENT_BYTES == 0
                assert image[offset : offset + dataset.nbytes] == dataset[()].tobytes()


def test_every_sample_comes_back():
    structures = [sample(number) for number in range(20)]
    edges = [radius_graph(each, 3.5) for each in structures]
    arrays = content(range(20)).arrays
    atoms, ends = arrays["offsets/atoms"], arrays["offsets/edges"]
    for row, (each, graph) in enumerate(zip(structures, edges, strict=True)):
        mine, links = slice(atoms[row], atoms[row + 1]), slice(ends[row], ends[row + 1])
        assert arrays["structures/id"][row].decode() == each.id
        np.testing.assert_array_equal(arrays["atoms/atomic_number"][mine], each.atomic_number)
        np.testing.assert_array_equal(arrays["atoms/position"][mine], each.position, strict=True)
        np.testing.assert_array_equal(arrays["structures/cell"][row], each.cell, strict=True)
        np.testing.assert_array_equal(arrays["atoms/degree"][mine], graph.degree)
        np.testing.assert_array_equal(arrays["edges/sender"][links], graph.sender)
        np.testing.assert_array_equal(arrays["edges/shift"][links], graph.shift)
        np.testing.assert_array_equal(arrays["targets/groups"][row], each.targets["groups"])
        gap, family = each.targets.get("gap"), each.targets.get("family")
        assert np.isnan(arrays["targets/gap"][row]) if gap is None else arrays["targets/gap"][row] == np.float32(gap)
        assert arrays["targets/family"][row] == (-1 if family is None else family)


def test_nothing_periodic_leaves_out_cells_and_shifts():
    arrays = content(range(4), periodic=False).arrays
    assert "structures/cell" not in arrays
    assert "edges/shift" not in arrays
    assert not arrays["structures/pbc"].any()


@pytest.mark.parametrize(("atoms", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_senders_take_the_smallest_type(atoms, dtype):
    position = np.arange(3 * atoms, dtype=np.float32).reshape(-1, 3)
    chain = Structure("x", np.ones(atoms, np.uint8), position, np.zeros((3, 3), np.float32), np.zeros(3, bool))
    arrays = build_content([chain], [radius_graph(chain, 6.0)], {}, [0]).arrays
    assert arrays["edges/sender"].dtype == dtype
    assert arrays["edges/sender"].max(initial=0) == atoms - 1
    shard_image(build_content([chain], [radius_graph(chain, 6.0)], {}, [0]))


def test_values_beyond_single_precision_are_faults():
    for value in (1e39, -1e39, float("inf"), float("nan")):
        faulty = Structure("x", *[getattr(sample(1), n) for n in ("atomic_number", "position", "cell", "pbc")])
        assert faulty.fault() is None
        faulty.targets["gap"] = value
        assert "target gap is not a finite number" in faulty.fault()
