"""What is known of samples beside their geometry: ids, compositions and targets, read without edges or positions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.ragged import offsets
from matsci_hpc.shards.layout import Array, target_path
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.structure import MAX_ATOMIC_NUMBER

Numbers = NDArray[np.int64]
ELEMENTS = MAX_ATOMIC_NUMBER + 1
"""Length of a composition: a place for every atomic number, and for 0."""


def sample_ids(collection: Collection, samples: Numbers) -> NDArray[np.bytes_]:
    """Ids of samples of data sets in folders, UTF-8: bytes [n].

    Args:
        collection: where the samples are.
        samples: int64 [n], numbers in the collection in non-descending order, at least one.

    Raises:
        MachineError: a shard is missing or damaged.
    """
    found: list[Any] = []
    _read(collection, samples, lambda arrays, rows, _: found.append(arrays["structures/id"][rows]))
    return np.concatenate(found)


def compositions(collection: Collection, samples: Numbers) -> NDArray[np.int32]:
    """Atoms of each element: int32 [n, ELEMENTS]; arguments and errors of `sample_ids`."""
    found = np.zeros((len(samples), ELEMENTS), dtype=np.int32)

    def count(arrays: dict[str, Array], rows: Numbers, places: slice) -> None:
        begin = arrays["offsets/atoms"][rows].astype(np.int64)
        atoms = arrays["offsets/atoms"][rows + 1].astype(np.int64) - begin
        row = np.repeat(np.arange(len(rows)), atoms)
        place = np.arange(len(row)) - offsets(atoms)[row] + begin[row]
        number = arrays["atoms/atomic_number"][place].astype(np.int64)
        counts = np.bincount(row * ELEMENTS + number, minlength=len(rows) * ELEMENTS)
        found[places] = counts.reshape(-1, ELEMENTS)

    _read(collection, samples, count)
    return found


def target_values(collection: Collection, name: str, samples: Numbers) -> Array:
    """A target that is a number or label of the structure, as shards store it.

    Args:
        collection: where the samples are.
        name: of the target.
        samples: as in `sample_ids`.

    Returns:
        float32 [n] with NaN where it is absent (regression, binary), int16 [n] with -1 where it is (class), or uint8
        [n, labels] (multilabel).

    Raises:
        MachineError: a shard is missing or damaged.
    """
    spec = collection.targets[name]
    found: Any
    if spec.kind == "multilabel":
        found = np.zeros((len(samples), len(spec.classes or ())), dtype=np.uint8)
    elif spec.kind == "class":
        found = np.full(len(samples), -1, dtype=np.int16)
    else:
        found = np.full(len(samples), np.nan, dtype=np.float32)

    def copy(arrays: dict[str, Array], rows: Numbers, places: slice) -> None:
        column = arrays.get(target_path(name, spec))
        if column is not None:
            found[places] = column[rows]

    _read(collection, samples, copy)
    whole: Array = found
    return whole


def _read(collection: Collection, samples: Numbers, take: Callable[[dict[str, Array], Numbers, slice], None]) -> None:
    """Call `take` shard by shard, with its arrays, rows of these and their places among the samples."""
    for part in collection.parts(samples):
        dataset = collection.datasets[part.dataset]
        arrays, rows = dataset.part(part.shard, part.rows)
        try:
            take(arrays, rows, slice(part.start, part.start + len(rows)))
        except (IndexError, KeyError, ValueError):  # arrays shorter than their offsets say, or not there
            if not isinstance(dataset, DataSet):
                raise
            raise MachineError(
                f"{dataset.folder / dataset.manifest.shards[part.shard].file}: damaged; "
                f"`matsci-hpc shards verify {dataset.folder}` tells more"
            ) from None
