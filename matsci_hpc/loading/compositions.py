"""How many atoms of each element some samples have, and their values of a target, read straight from the shards."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.collection import Collection
from matsci_hpc.shards.layout import target_path
from matsci_hpc.structure import MAX_ATOMIC_NUMBER

ROWS = 2048
"""Samples read at once: their counts take two megabytes."""


@dataclass(frozen=True, slots=True)
class Compositions:
    """Some samples that carry a target.

    Attributes:
        counts: int64 [n, 119], atoms by atomic number.
        values: float64 [n], in the unit of the target.
    """

    counts: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def atoms(self) -> NDArray[np.int64]:
        """Atoms of each sample: int64 [n]."""
        atoms: NDArray[np.int64] = self.counts.sum(axis=1)
        return atoms


def compositions(collection: Collection, target: str, samples: NDArray[np.int64]) -> Iterator[Compositions]:
    """Those of the samples that carry a target, a few at a time, in the order of their numbers.

    Args:
        collection: the data.
        target: one number per structure.
        samples: int64 [n], ascending.

    Raises:
        MachineError: a shard is missing or damaged.
    """
    path = target_path(target, collection.targets[target])
    carrying = samples[collection.present(target, samples)]
    for part in collection.parts(carrying):
        for start in range(0, len(part.rows), ROWS):
            arrays, rows = collection.datasets[part.dataset].part(part.shard, part.rows[start : start + ROWS])
            begin = arrays["offsets/atoms"][rows].astype(np.int64)
            atoms = arrays["offsets/atoms"][rows + 1].astype(np.int64) - begin
            row = np.repeat(np.arange(len(rows)), atoms)
            first = np.cumsum(atoms) - atoms
            number = arrays["atoms/atomic_number"][np.arange(len(row)) - first[row] + begin[row]].astype(np.int64)
            width = MAX_ATOMIC_NUMBER + 1
            counts = np.bincount(row * width + number, minlength=len(rows) * width).reshape(-1, width)
            yield Compositions(counts, arrays[path][rows].astype(np.float64))
