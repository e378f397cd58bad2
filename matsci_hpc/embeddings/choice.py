"""Which samples are embedded: a split of each data set, or a few of it that follow from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.permutation import Permutation

Numbers = NDArray[np.int64]
EVERY_SPLIT = "all"
"""Stands for all splits of a data set, unless one of them has this name."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples of one data set.

    Attributes:
        name: short and unlike those of the others.
        collection: of that data set alone: others may have other neighbour rules, or other kinds of a target.
        samples: int64 [n], ascending.
        of: how many there were to choose from.
    """

    name: str
    collection: Collection
    samples: Numbers
    of: int


def choose(folders: Sequence[Path], split: str, limit: int | None, seed: int) -> list[Chosen]:
    """The samples of a split of each data set.

    Args:
        folders: of the data sets.
        split: name of a split, or `EVERY_SPLIT`.
        limit: most samples of a data set. Which ones are taken follows from the seed and from what the data set holds,
            and those of a smaller limit are among those of a larger one.
        seed: of the choice.

    Raises:
        UserInputError: a folder is no data set, or has no sample in the split.
    """
    found = []
    for name, folder in zip(short_names(folders), folders, strict=True):
        collection = Collection([folder])
        (data,) = collection.datasets
        if split == EVERY_SPLIT and split not in data.manifest.splits:
            samples = np.arange(len(collection), dtype=np.int64)
        else:
            try:
                samples = collection.in_split(split)
            except UserInputError as error:
                raise UserInputError(f"{folder}: {error}; or --split {EVERY_SPLIT}") from None
        of = len(samples)
        if limit is not None and limit < of:
            order = Permutation(of, seed, "embed", data.manifest.fingerprint)
            samples = samples[np.sort(order(np.arange(limit)))]
        found.append(Chosen(name, collection, samples, of))
    return found


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path where that is not enough to tell them apart.

    Raises:
        UserInputError: a folder is named twice.
    """
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder, path in zip(folders, resolved, strict=True) if resolved.count(path) > 1), None)
    if twice is not None:
        raise UserInputError(f"{twice} is named twice; name it once")
    names = [path.name for path in resolved]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
