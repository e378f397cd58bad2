"""The index, written piece by piece, against one that is made in memory at once."""

import numpy as np
import pytest

from matsci_hpc.errors import MachineError
from matsci_hpc.shards import index as module
from matsci_hpc.shards.index import write_index
from matsci_hpc.shards.layout import ShardContent
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.whole_files import appearing


def rows(sizes, *, splits=3, mask="uint8", seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "row": np.arange(size, dtype=np.uint32),
            "split": rng.integers(0, splits, size).astype(np.uint8),
            "atoms": rng.integers(1, 2**32, size).astype(np.uint32),
            "edges": rng.integers(0, 2**32, size).astype(np.uint32),
            "present": rng.integers(0, 2, size).astype(mask),
        }
        for size in sizes
    ]


def at_once(shards):
    """The whole file in memory, by the plainest means."""
    shard = np.repeat(np.arange(len(shards), dtype=np.uint32), [len(each["row"]) for each in shards])
    columns = {name: np.concatenate([each[name] for each in shards]) for name in shards[0]}
    columns["by_split"] = np.argsort(columns["split"], kind="stable").astype(np.uint32)
    return shard_image(ShardContent({"shard": shard} | columns))


@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("sizes", "more"),
    [
        ([1], {}),
        ([3, 1, 17, 2], {}),
        ([64] * 9, {"splits": 256}),
        ([5, 9], {"splits": 1, "mask": "uint64"}),
        ([1000, 1, 999], {"mask": "uint16"}),
    ],
)
def test_same_bytes_as_made_at_once(tmp_path, monkeypatch, sizes, more, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    made = rows(sizes, **more)
    write_index(tmp_path / "index.h5", made, sum(sizes))
    assert (tmp_path / "index.h5").read_bytes() == at_once(made)


@pytest.mark.parametrize("samples", [3, 5])
def test_another_number_of_samples_than_announced(tmp_path, samples):
    with pytest.raises(ValueError, match=r"the shards hold (more than 3 samples|4 samples, not 5)"):
        write_index(tmp_path / "index.h5", rows([2, 1, 1]), samples)


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path):
    path = tmp_path / "index.h5"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="more than 1"), appearing(path) as temporary:
        write_index(temporary, rows([2]), 1)
    with pytest.raises(MachineError, match=r"index.h5: No space left on device; free some space"), appearing(path):
        raise OSError(28, "No space left on device")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"before"]
