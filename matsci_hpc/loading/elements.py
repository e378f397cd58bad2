"""Which chemical elements data sets hold."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.generated import GeneratedData
from matsci_hpc.sources.cloud_drafts import HEAVIEST
from matsci_hpc.structure import MAX_ATOMIC_NUMBER

AT_ONCE = 1 << 24
"""Atoms counted between two signs of progress."""


def element_counts(collection: Collection, progress: Callable[[], None] = lambda: None) -> NDArray[np.int64]:
    """Atoms of each element in all splits of some data sets: int64 [119], by atomic number.

    Every shard is looked at, a byte for each atom. Clouds that are made while training count as one atom of each type
    that they may hold.

    Args:
        collection: the data sets.
        progress: called now and then.

    Raises:
        MachineError: a shard cannot be read.
    """
    counts = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=np.int64)
    for each in collection.datasets:
        if isinstance(each, GeneratedData):
            counts[1 : HEAVIEST + 1] += 1
            continue
        for number in range(len(each.manifest.shards)):
            elements = each.shard(number)["atoms/atomic_number"]
            for start in range(0, len(elements), AT_ONCE):
                counts += np.bincount(elements[start : start + AT_ONCE], minlength=256)[: len(counts)]
                progress()
    return counts
