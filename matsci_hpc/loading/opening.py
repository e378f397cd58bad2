"""The data sets that a training config names, opened as one collection."""

from collections.abc import Sequence
from pathlib import Path

from matsci_hpc.config.data import Data
from matsci_hpc.config.data import DataSet as Entry
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.generated import GeneratedData
from matsci_hpc.loading.generated_clouds import CACHE_BYTES
from matsci_hpc.loading.subset import draw_subset
from matsci_hpc.shards.reader import Place
from matsci_hpc.sources.cloud_generator import BLOCK


def open_collection(data: Data, places: Sequence[Place] | None = None) -> Collection:
    """The samples of a run.

    Args:
        data: section of the config.
        places: where the shards of each folder are read, if not there.

    Raises:
        UserInputError: a data set is missing or damaged, they do not fit together, a source cannot be used so, or a
            subset is larger than the split.
    """
    collection = Collection([_opened(each, data) for each in data.entries], places)
    if data.subset is not None:
        counts = collection.split_counts(data.split).tolist()
        collection.restrict(data.split, draw_subset(counts, data.subset.samples, data.subset.seed))
    return collection


def generated(entry: Entry) -> GeneratedData | None:
    """The data set that an entry stands for, if it lies in no folder.

    Raises:
        UserInputError: it cannot be generated with these settings.
    """
    if entry.source is None or entry.neighbors is None:
        return None
    return GeneratedData(entry.source, entry.neighbors.cutoff)


def _opened(entry: Entry, data: Data) -> Path | GeneratedData:
    made = generated(entry)
    if made is None:
        return Path(entry.path or "")
    if data.stream is None and data.block < BLOCK and made.drawn_bytes > CACHE_BYTES:
        raise UserInputError(
            f"data.block: {data.block:,}, but {made.name} are drawn {BLOCK:,} together, and too many to be kept: set "
            f"data.block to {8 * BLOCK} (any {BLOCK:,} are as random as others), or samples: {{{data.split}: endless}}"
        )
    return made
