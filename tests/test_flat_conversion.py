"""Shards from whole arrays are, byte for byte, those from an object per sample."""

import numpy as np
import pytest
from preparation import data_set

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.conversion import block_content, convert, read_block
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.sources.base import FlatSource
from matsci_hpc.sources.cloud_generator import BLOCK
from matsci_hpc.sources.symmetry import SymmetrySource


def both(number, *, shard_size, cutoff=2.0, store=True, **settings):
    """The image of a shard and the rejected inputs, by arrays and by objects."""
    source_config = {"kind": "symmetry", "samples": 2000} | settings
    neighbors = {"cutoff": cutoff, "store": store}
    config = PrepConfig.model_validate(
        {"source": source_config, "out": "unused", "shard_size": shard_size, "neighbors": neighbors}
    )
    source = SymmetrySource.from_config(config.source, config.splits)
    assert isinstance(source, FlatSource)
    start, stop = number * shard_size, min((number + 1) * shard_size, len(source))
    content, rejected = convert(config, source, start, stop, number)
    structures, edges, expected = read_block(config, source, start, stop)
    image = None if content is None else shard_image(content)
    ordinary = shard_image(block_content(config, source, structures, edges, number)) if structures else None
    return (image, rejected), (ordinary, expected)


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    ("number", "settings"),
    [
        pytest.param(0, {"shard_size": 500}, id="all pairs"),
        pytest.param(1, {"shard_size": 1000, "subgroups": True}, id="several splits, subgroups"),
        pytest.param(1, {"shard_size": 1000, "cutoff": 0.7}, id="some pairs"),
        pytest.param(1, {"shard_size": 1000, "cutoff": 0.02}, id="no pairs"),
        pytest.param(1, {"shard_size": 1000, "cutoff": 1.7, "jitter": 0.001}, id="some clouds whole"),
        pytest.param(2, {"shard_size": 1500, "samples": 2 * BLOCK, "cutoff": 2.5}, id="border of blocks"),
        pytest.param(
            1, {"shard_size": 600, "samples": {"a": 700, "einige": 9, "b": 700}}, id="names of several lengths"
        ),
        pytest.param(0, {"shard_size": 100, "groups": ["Ih", "C9"], "max_atoms": 255}, id="large clouds"),
    ],
)
def test_shards_are_the_same(number, settings, store):
    quick, ordinary = both(number, store=store, **settings)
    assert quick == ordinary
    assert quick[0] is not None
    assert quick[1] == []


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"min_distance": 0.0, "max_orbits": 30, "samples": 3000, "shard_size": 3000}, id="near"),
        pytest.param({"jitter": 0.03, "samples": {"a": 1000, "longer": 1000}, "shard_size": 2000}, id="jitter"),
        pytest.param({"jitter": 3e4, "cutoff": 1e4, "shard_size": 100, "groups": ["C1", "D2"]}, id="wide"),
    ],
)
def test_the_same_inputs_are_rejected_for_the_same_reasons(settings, store):
    quick, ordinary = both(0, store=store, **settings)
    assert quick == ordinary
    assert len(quick[1]) > 0
    assert quick[0] is not None


def test_a_shard_without_a_usable_input_is_none():
    quick, ordinary = both(0, shard_size=5, samples=5, jitter=1e7)
    assert quick == ordinary
    assert quick[0] is None
    assert len(quick[1]) == 5


def test_ids_shrink_when_the_longest_is_rejected():
    settings = {"jitter": 5e4, "cutoff": 1e4, "shard_size": 40, "groups": ["C1"]}
    for seed in range(20):
        quick, ordinary = both(0, samples={"a": 39, "longest": 1}, seed=seed, **settings)
        assert quick == ordinary
        if any(each.source.startswith("longest") for each in quick[1]):
            return
    pytest.fail("no seed rejected the longest name")


def test_a_whole_data_set_is_the_same_without_the_quick_way(tmp_path, monkeypatch):
    def made(name):
        config = PrepConfig.model_validate(
            {
                "source": {"kind": "symmetry", "samples": BLOCK + 7, "jitter": 0.01, "subgroups": True},
                "out": tmp_path / name,
                "shard_size": 3000,
                "neighbors": {"cutoff": 1.5},
            }
        )
        prepare(config, World())
        return data_set(tmp_path / name)

    quick = made("quick")
    monkeypatch.delattr(SymmetrySource, "read_flat")
    ordinary = made("ordinary")
    assert list(quick) == list(ordinary)
    assert quick == ordinary
    assert np.frombuffer(quick["shard-00000.h5"], dtype=np.uint8).any()
