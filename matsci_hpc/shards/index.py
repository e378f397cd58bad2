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

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.layout import Array, ShardContent, edge_counts, is_present
from matsci_hpc.shards.manifest import INDEX
from matsci_hpc.shards.mapping import map_arrays
from matsci_hpc.shards.writer import shard_image
from matsci_hpc.targets import MAX_TARGETS, TargetSpec


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


def index_rows(content_arrays: dict[str, Array], targets: dict[str, TargetSpec]) -> dict[str, Array]:
    """The columns of one shard, all but `shard`."""
    atoms = np.diff(content_arrays["offsets/atoms"]).astype(np.uint32)
    present = np.zeros(len(atoms), dtype=_mask_type(len(targets)))
    for bit, (name, spec) in enumerate(targets.items()):
        present |= is_present(content_arrays[f"targets/{name}"], spec).astype(present.dtype) << present.dtype.type(bit)
    return {
        "row": np.arange(len(atoms), dtype=np.uint32),
        "split": content_arrays["structures/split"],
        "atoms": atoms,
        "edges": edge_counts(content_arrays).astype(np.uint32),
        "present": present,
    }


def index_image(rows: list[dict[str, Array]], fingerprint: str | None = None) -> bytes:
    """The file index.h5 from the columns of every shard in order."""
    shard = np.repeat(np.arange(len(rows), dtype=np.uint32), [len(each["row"]) for each in rows])
    columns = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
    columns["by_split"] = np.argsort(columns["split"], kind="stable").astype(np.uint32)
    attributes: dict[str, str | int | float] = {} if fingerprint is None else {"fingerprint": fingerprint}
    return shard_image(ShardContent({"shard": shard} | columns, attributes))


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
