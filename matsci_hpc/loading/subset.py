"""A part of the training split, drawn at random by a seed of its own, and what its targets are like.

The samples of the split, counted through all data sets, are put in a random order that the seed decides; a subset of n
samples is the first n of it. So subsets of one seed lie within each other, and every rank finds the same one without
asking another.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.loading.permutation import Numbers, Permutation
from matsci_hpc.ragged import offsets
from matsci_hpc.shards.layout import Array, target_path
from matsci_hpc.shards.statistics import TargetStatistics

if TYPE_CHECKING:
    from matsci_hpc.loading.collection import Collection


def draw_subset(counts: Sequence[int], samples: int, seed: int) -> list[Numbers]:
    """Draw a part of a split.

    Args:
        counts: samples of the split in each data set.
        samples: how many are drawn, of all data sets together.
        seed: of the draw.

    Returns:
        For each data set, int64 positions among its samples of the split, ascending.

    Raises:
        UserInputError: there are not so many.
    """
    total = sum(counts)
    if samples > total:
        raise UserInputError(
            f"data.subset: {samples:,} samples, and the training split has {total:,}; ask for no more, or leave it out "
            "to train on all"
        )
    drawn = np.sort(Permutation(total, "subset", seed)(np.arange(samples)))
    starts = np.cumsum([0, *counts])
    borders = np.searchsorted(drawn, starts)
    return [drawn[borders[d] : borders[d + 1]] - starts[d] for d in range(len(counts))]


def statistics_of(collection: "Collection", samples: Numbers, target: str) -> TargetStatistics:
    """Exact statistics of a target over some samples, read from their shards.

    Args:
        collection: the data.
        samples: int64 [n], ascending numbers.
        target: one that a data set has.

    Raises:
        MachineError: a shard is missing or damaged.
    """
    spec = collection.targets[target]
    columns: list[Array] = []
    atoms: list[Numbers] = []
    for part in collection.parts(samples):
        dataset = collection.datasets[part.dataset]
        arrays, rows = dataset.part(part.shard, part.rows)
        column = arrays.get(target_path(target, spec))
        if column is None:
            continue
        try:
            if spec.per_atom:
                first = arrays["offsets/atoms"].astype(np.int64)
                atoms.append(first[rows + 1] - first[rows])
                rows = np.repeat(first[rows] - offsets(atoms[-1])[:-1], atoms[-1]) + np.arange(atoms[-1].sum())
            columns.append(column[rows])
        except IndexError:  # shorter than the index says
            raise MachineError(
                f"{dataset.name}: a shard is damaged; `matsci-hpc shards verify {dataset.name}` tells more"
            ) from None
    if not columns:
        return TargetStatistics()
    values = np.concatenate(columns)
    if spec.per_atom:
        return TargetStatistics.of_atoms(values, spec, np.concatenate(atoms))
    return TargetStatistics.of_column(values, spec)
