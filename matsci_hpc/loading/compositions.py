"""How many atoms of each element some samples have, and their values of a target, read straight from the shards."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading import labels
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.labels import target_values

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
    carrying = samples[collection.present(target, samples)]
    for start in range(0, len(carrying), ROWS):
        some = carrying[start : start + ROWS]
        values = target_values(collection, target, some).astype(np.float64)
        yield Compositions(labels.compositions(collection, some).astype(np.int64), values)
