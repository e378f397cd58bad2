"""index.h5: what planning needs to know of every sample, without opening a shard.

shard     uint32 [N]   row of the shard in the manifest's list
row       uint32 [N]   position within the shard
split     uint8  [N]   number of the split
atoms     uint32 [N]
edges     uint32 [N]
present   uint8..uint64 [N]   bit t is set where the sample carries target t (order of the manifest)
by_split  uint32 [N]   sample numbers, stably sorted by split number: all of split 0 first, ascending, then split 1, ...

The columns are read where they lie in the file: all ranks of a node share them in the page cache, and a data set of
any size costs a process no memory.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.layout import Array, deciding, edge_counts, is_present, target_path
from matsci_hpc.shards.manifest import INDEX
from matsci_hpc.shards.mapping import map_arrays
from matsci_hpc.shards.writer import reserve
from matsci_hpc.targets import MAX_SPLITS, MAX_TARGETS, TargetSpec

_PIECE = 1 << 20
"""Samples looked at together."""


@dataclass(frozen=True, slots=True)
class Index:
    """Columns over all samples of a data set, in the order of the inputs (dtypes as in the module's table); mapped."""

    shard: NDArray[np.uint32]
    row: NDArray[np.uint32]
    split: NDArray[np.uint8]
    atoms: NDArray[np.uint32]
    edges: NDArray[np.uint32]
    present: Array
    by_split: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.shard)


def index_rows(content_arrays: dict[str, Any], targets: dict[str, TargetSpec]) -> dict[str, Array]:
    """The columns of one shard, all but `shard`."""
    atoms = np.diff(content_arrays["offsets/atoms"]).astype(np.uint32)
    present = np.zeros(len(atoms), dtype=_mask_type(len(targets)))
    for bit, (name, spec) in enumerate(targets.items()):
        values = deciding(content_arrays[target_path(name, spec)], spec, content_arrays["offsets/atoms"][:-1])
        present |= is_present(values, spec).astype(present.dtype) << present.dtype.type(bit)
    return {
        "row": np.arange(len(atoms), dtype=np.uint32),
        "split": content_arrays["structures/split"],
        "atoms": atoms,
        "edges": edge_counts(content_arrays).astype(np.uint32),
        "present": present,
    }


def write_index(path: Path, rows: Iterable[dict[str, Array]], samples: int, fingerprint: str | None = None) -> None:
    """Write the file index.h5, in memory that does not grow with it.

    Args:
        path: of a new file.
        rows: the columns of every shard in order.
        samples: of all shards, at least one.
        fingerprint: of the data set, by which its index is known.

    Raises:
        OSError: it cannot be written.
        ValueError: the shards hold another number of samples.
    """
    shards = iter(rows)
    first = next(shards)
    types = {"shard": np.dtype(np.uint32)} | {name: column.dtype for name, column in first.items()}
    types["by_split"] = np.dtype(np.uint32)
    attributes = {} if fingerprint is None else {"fingerprint": fingerprint}
    offsets = reserve(path, {name: ((samples,), dtype) for name, dtype in types.items()}, attributes)
    with path.open("r+b", buffering=0) as file:
        start = 0
        for number, columns in enumerate(itertools.chain([first], shards)):
            count = len(columns["row"])
            if start + count > samples:
                raise ValueError(f"{path}: the shards hold more than {samples:,} samples")
            shard = np.full(count, number, dtype=np.uint32)
            for name, column in ({"shard": shard} | columns).items():
                _put(file, offsets[name] + start * types[name].itemsize, column)
            start += count
        if start < samples:
            raise ValueError(f"{path}: the shards hold {start:,} samples, not {samples:,}")
        _write_by_split(file, offsets["split"], offsets["by_split"], samples)


def _write_by_split(file: FileIO, split_offset: int, target_offset: int, samples: int) -> None:
    """Sort the samples by their split, by counting: once over the column for the sizes, once for the places."""
    pieces = [(start, min(_PIECE, samples - start)) for start in range(0, samples, _PIECE)]

    def splits(start: int, count: int) -> NDArray[np.uint8]:
        file.seek(split_offset + start)
        return np.frombuffer(file.read(count), dtype=np.uint8)

    sizes = sum(np.bincount(splits(*piece), minlength=MAX_SPLITS) for piece in pieces)
    place = (np.cumsum(sizes) - sizes).tolist()
    for start, count in pieces:
        column = splits(start, count)
        for split in np.unique(column).tolist():
            numbers = (np.flatnonzero(column == split) + start).astype(np.uint32)
            _put(file, target_offset + place[split] * numbers.itemsize, numbers)
            place[split] += len(numbers)


def _put(file: FileIO, offset: int, array: Array) -> None:
    file.seek(offset)
    left = np.ascontiguousarray(array).view(np.uint8).data
    while left:
        left = left[file.write(left) :]


def read_index(folder: Path) -> Index:
    """The index of a data set.

    Raises:
        UserInputError: the file is missing or damaged.
    """
    path = folder / INDEX
    try:
        columns: dict[str, Any] = dict(map_arrays(path))
        return Index(**{name: columns[name] for name in Index.__dataclass_fields__})
    except (OSError, KeyError, ValueError):
        raise UserInputError(f"{path}: missing or damaged; `matsci-hpc shards verify {folder}` tells more") from None


def _mask_type(targets: int) -> np.dtype[np.generic]:
    if targets > MAX_TARGETS:
        raise UserInputError(f"{targets} targets; a data set can hold {MAX_TARGETS}")
    bits = max(8, 1 << max(0, targets - 1).bit_length())
    return np.dtype(f"uint{bits}")
