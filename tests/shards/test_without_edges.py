"""Data sets prepared with `neighbors.store: false`: everything but the edges themselves."""

import json

import h5py
import numpy as np
import pytest
from crystals import write_broken, write_crystals
from preparation import data_set, run_on_ranks, run_program

from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.shards.verify import _shard_fault, verify

EDGES = {"offsets/edges", "atoms/degree", "edges/sender", "edges/shift"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without_edges")
    write_crystals(folder / "cifs", 30)
    write_broken(folder / "cifs/broken")
    path = folder / "prep.yaml"
    text = {"source": {"kind": "cif", "path": str(folder / "cifs")}, "shard_size": 8, "neighbors": {"cutoff": 4.0}}
    path.write_text(json.dumps(text | {"out": str(folder / "unused")}))
    return path


@pytest.fixture(scope="module")
def stored(config):
    return prepared(config, "stored")


@pytest.fixture(scope="module")
def lean(config):
    return prepared(config, "lean", "neighbors.store=false")


def prepared(config, name, *overrides):
    out = config.parent / name
    done = run_program("prep", config, f"out={out}", *overrides)
    assert done.returncode == 0, done.stderr
    return out


def test_only_the_edges_are_missing(stored, lean):
    full, less = read_manifest(stored), read_manifest(lean)
    assert full.neighbors.stored
    assert not less.neighbors.stored
    assert less.fields.keys() == (full.fields.keys() - EDGES) | {"structures/edges"}
    assert less.counts == full.counts
    assert less.statistics == full.statistics
    assert (lean / "quarantine.jsonl").read_bytes() == (stored / "quarantine.jsonl").read_bytes()
    other = (stored / "index.h5").read_bytes().replace(full.fingerprint.encode(), less.fingerprint.encode())
    assert (lean / "index.h5").read_bytes() == other
    for number, shard in enumerate(less.shards):
        mine, other = DataSet(lean).shard(number), DataSet(stored).shard(number)
        assert mine.keys() == (other.keys() - EDGES) | {"structures/edges"}
        for name in other.keys() - EDGES:
            np.testing.assert_array_equal(mine[name], other[name], strict=True)
        np.testing.assert_array_equal(mine["structures/edges"], np.diff(other["offsets/edges"]))
        assert shard.edges == full.shards[number].edges
        assert shard.bytes < full.shards[number].bytes


def test_it_says_so_and_verifies(stored, lean):
    assert "edges      not stored: found while loading" in run_program("shards", "info", lean).stdout
    assert "edges      stored in the shards" in run_program("shards", "info", stored).stdout
    assert verify(lean) == []
    path = lean / "shard-00003.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"damaged!!")
    assert len(verify(lean)) == 1
    path.write_bytes(whole)


def test_a_shard_of_other_edge_counts_is_found_even_with_the_right_checksum(lean, tmp_path):
    manifest = read_manifest(lean)
    record = manifest.shards[0]
    copy = tmp_path / record.file
    copy.write_bytes((lean / record.file).read_bytes())
    with h5py.File(copy, "r+") as file:
        file["structures/edges"][0] += 1
    assert f"{record.edges + 1}) samples, atoms and edges" in _shard_fault(copy, record, manifest)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_same_bytes_for_any_number_of_ranks(config, lean, tmp_path, ranks):
    arguments = ["-m", "matsci_hpc", "prep", config, f"out={tmp_path / 'out'}", "neighbors.store=false"]
    done = run_on_ranks(ranks, arguments)
    assert done.returncode == 0, done.stderr
    assert data_set(tmp_path / "out") == data_set(lean)


def test_the_other_kind_into_the_same_folder(config, lean):
    before = data_set(lean)
    done = run_program("prep", config, f"out={lean}", "neighbors.store=true")
    assert done.returncode == 2
    assert "made from another input or config" in done.stderr
    assert data_set(lean) == before


@pytest.mark.mpi
def test_a_restart_keeps_whole_shards_of_the_same_kind_alone(config, lean, stored, tmp_path):
    out = tmp_path / "out"
    # An interruption right before the end, of a preparation that stored edges.
    program = (
        "import sys\nfrom matsci_hpc import cli, errors, prepare\n"
        "def stop(*_):\n    raise errors.MachineError('interrupted')\n"
        "prepare._finish = stop\n"
        f"sys.argv[1:] = ['prep', {str(config)!r}, 'out={out}', 'neighbors.store=' + sys.argv[1]]\ncli.main()"
    )
    assert run_on_ranks(2, ["-c", program, "true"]).returncode == 3
    assert sorted(path.name for path in out.glob("*.h5")) == [each.file for each in read_manifest(stored).shards]
    assert run_on_ranks(2, ["-c", program, "false"]).returncode == 3
    assert run_program("prep", config, f"out={out}", "neighbors.store=false").returncode == 0
    assert data_set(out) == data_set(lean)
    reused = json.loads((out / "provenance.json").read_text())["reused_shards"]
    assert reused == len(read_manifest(lean).shards)
