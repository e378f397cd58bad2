"""Finished data sets as a source: to split or cut them anew, to merge them, to add edges or to leave them out.

Nothing is parsed: samples come from the mapped shards as they are, in their order, one data set after the other.
Edges that are stored for the wanted cutoff are handed on instead of being searched.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.config.sources import ShardsSource as ShardsConfig
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.neighbors import RULE, Edges
from matsci_hpc.shards.layout import Array, target_path
from matsci_hpc.shards.manifest import ShardRecord
from matsci_hpc.shards.reader import DataSet, ShardPool
from matsci_hpc.sources.base import StructureWithEdges
from matsci_hpc.sources.merging import common_splits, common_targets, doubled_ids, labels
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import TargetSpec
from matsci_hpc.whole_files import file_checksum


class ShardsSource:
    """Samples of one data set or several, numbered through.

    Args:
        data_sets: at least one; they share a pool of maps.
        config: the section `source` of the preparation.
        splits: names of the splits for samples that do not keep theirs.
    """

    def __init__(self, data_sets: list[DataSet], config: ShardsConfig, splits: Iterable[str]) -> None:
        self.data_sets = data_sets
        self.config = config
        self.labels = labels([each.folder for each in data_sets], prefixes=config.prefix_ids)
        self.stored_targets, self.targets = common_targets(data_sets, config.targets)
        stored_splits = common_splits(data_sets, config.only_splits)
        self.splits = stored_splits if config.keep_splits else tuple(splits)
        self._chosen: dict[int, NDArray[np.int64]] = {}
        self._checked: set[tuple[int, int]] = set()
        # Where the samples of each data set begin among the inputs, and where the last of them end.
        sizes = [self._size(number) for number in range(len(data_sets))]
        self.starts = [0, *np.cumsum(sizes).tolist()]
        if not len(self):
            raise UserInputError(f"none of the {len(data_sets)} data sets has a sample in {config.only_splits}")
        total = sum(len(each.index) for each in data_sets)
        self.remarks = {"samples of other splits": total - len(self)} if config.only_splits is not None else {}
        self.doubled, self.first = self._doubled()
        self.identity = self._digest()
        found = {name for each in data_sets for name in each.manifest.generators or ()}
        self.generators = tuple(sorted(found))

    @classmethod
    def from_config(cls, config: ShardsConfig, splits: Iterable[str], staging: Path | None = None) -> "ShardsSource":  # noqa: ARG003
        """Open the data sets that a config names.

        Args:
            config: the section `source` of the preparation.
            splits: names of the splits for samples that do not keep theirs.
            staging: not used; nothing has to be unpacked.

        Raises:
            UserInputError: a folder without a whole data set, targets or splits that do not go together.
        """
        pool = ShardPool()
        return cls([DataSet(path, pool) for path in config.paths], config, splits)

    def __len__(self) -> int:
        """Number of samples that are taken."""
        return int(self.starts[-1])

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """The samples `start` to `stop - 1`."""
        for number in range(len(self.data_sets)):
            first, after = max(start, self.starts[number]), min(stop, self.starts[number + 1])
            if first < after:
                yield from self._read(number, first, after)

    def _read(self, number: int, start: int, stop: int) -> Iterator[Structure | Rejected]:
        index = self.data_sets[number].index
        samples = self._samples(number, start - self.starts[number], stop - self.starts[number])
        shards, rows = index.shard[samples].tolist(), index.row[samples].tolist()
        doubles = self._doubles(start, stop)
        reader: _ShardRows | None = None
        for place, shard, row in zip(range(start, stop), shards, rows, strict=True):
            if reader is None or reader.shard != shard:
                reader = self._rows(number, shard)
            if place in doubles:
                name, taken = f"{self.labels[number]}:{reader.identifier(row)}", doubles[place]
                yield Rejected(name, f"the id is taken by a sample of {self.labels[self._data_set(taken)]}")
            else:
                yield reader.structure(row)

    def _rows(self, number: int, shard: int) -> "_ShardRows":
        data = self.data_sets[number]
        record = data.manifest.shards[shard]
        arrays = data.shard(shard)
        if (number, shard) not in self._checked:
            _check(data.folder, record)  # damage must not be given a new checksum and pass for sound
            self._checked.add((number, shard))
        neighbors = data.manifest.neighbors
        return _ShardRows(
            shard,
            arrays,
            targets={
                name: (stored, self.targets[name])
                for name, stored in self.stored_targets.items()
                if stored in data.manifest.targets
            },
            splits=tuple(data.manifest.splits) if self.config.keep_splits else None,
            label=self.labels[number],
            prefix=f"{self.labels[number]}/" if self.config.prefix_ids else "",
            cutoff=neighbors.cutoff_angstrom if neighbors.stored and neighbors.rule == RULE else None,
        )

    def _size(self, number: int) -> int:
        data, only = self.data_sets[number], self.config.only_splits
        if only is None:
            return len(data.index)
        return sum(count for split, count in data.manifest.splits.items() if split in only)

    def _samples(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Places in its index of the chosen samples `start` to `stop - 1` of a data set: int64 [stop - start]."""
        if self.config.only_splits is None:
            return np.arange(start, stop, dtype=np.int64)
        if number not in self._chosen:
            data = self.data_sets[number]
            wanted = [split in self.config.only_splits for split in data.manifest.splits]
            self._chosen[number] = np.flatnonzero(np.array(wanted)[data.index.split])
        return self._chosen[number][start:stop]

    def _data_set(self, place: int) -> int:
        return int(np.searchsorted(self.starts, place, side="right")) - 1

    def _doubled(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(self.data_sets) == 1 or self.config.prefix_ids:  # within a data set, preparation saw to it
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty
        pieces = (piece for number in range(len(self.data_sets)) for piece in self._ids(number))
        return doubled_ids(pieces, len(self), self._id)

    def _ids(self, number: int) -> Iterator[Array]:
        """Stored ids of the chosen samples of a data set, shard by shard."""
        index = self.data_sets[number].index
        samples = self._samples(number, 0, self._size(number))
        borders = np.searchsorted(index.shard[samples], np.arange(len(self.data_sets[number].manifest.shards) + 1))
        for shard, (first, after) in enumerate(itertools.pairwise(borders.tolist())):
            if first < after:
                yield self.data_sets[number].shard(shard)["structures/id"][index.row[samples[first:after]]]

    def _id(self, place: int) -> bytes:
        number = self._data_set(place)
        index = self.data_sets[number].index
        (sample,) = self._samples(number, place - self.starts[number], place - self.starts[number] + 1)
        return bytes(self.data_sets[number].shard(int(index.shard[sample]))["structures/id"][index.row[sample]])

    def _doubles(self, start: int, stop: int) -> dict[int, int]:
        """Inputs of a range whose id an earlier input has, and that one."""
        first, after = np.searchsorted(self.doubled, [start, stop])
        return dict(zip(self.doubled[first:after].tolist(), self.first[first:after].tolist(), strict=True))

    def _digest(self) -> str:
        digest = xxhash.xxh3_128()
        # A single data set may be moved; of several, the names stand in the quarantine and in ids.
        names = self.labels if len(self.labels) > 1 or self.config.prefix_ids else []
        digest.update(repr((names, self.splits, self.targets)).encode())
        for data in self.data_sets:
            manifest = data.manifest
            digest.update(repr((manifest.targets, manifest.splits, manifest.neighbors)).encode())
            digest.update(" ".join([manifest.index.xxh3_128, *(each.xxh3_128 for each in manifest.shards)]).encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """What every rank finds for itself stays behind."""
        return {**self.__dict__, "_chosen": {}, "_checked": set()}


class _ShardRows:
    """Samples of one mapped shard.

    Args:
        shard: its place in the manifest.
        arrays: by their names on disk.
        targets: stored name and spec of each target, by its name in the new data set.
        splits: names of the stored splits if samples keep theirs.
        label: of the data set, for messages.
        prefix: put before every id.
        cutoff: angstrom, of edges that may be handed on; None if there are none.
    """

    def __init__(
        self,
        shard: int,
        arrays: dict[str, Array],
        *,
        targets: dict[str, tuple[str, TargetSpec]],
        splits: tuple[str, ...] | None,
        label: str,
        prefix: str,
        cutoff: float | None,
    ) -> None:
        self.shard = shard
        self._arrays = arrays
        self._targets = [(name, arrays[target_path(stored, spec)], spec) for name, (stored, spec) in targets.items()]
        self._splits, self._label, self._prefix, self._cutoff = splits, label, prefix, cutoff
        self._atoms: list[int] = arrays["offsets/atoms"].tolist()
        self._edges: list[int] = arrays["offsets/edges"].tolist() if cutoff is not None else []
        self._no_cell = np.zeros((3, 3), dtype=np.float32)

    def identifier(self, row: int) -> str:
        """Stored id of a sample."""
        return bytes(self._arrays["structures/id"][row]).decode()

    def structure(self, row: int) -> Structure:
        """A sample, with its edges where they are stored."""
        arrays: Any = self._arrays
        atoms = slice(self._atoms[row], self._atoms[row + 1])
        identifier = self.identifier(row)
        fields = {
            "id": f"{self._prefix}{identifier}",
            "atomic_number": arrays["atoms/atomic_number"][atoms],
            "position": arrays["atoms/position"][atoms],
            "cell": arrays["structures/cell"][row] if "structures/cell" in arrays else self._no_cell,
            "pbc": arrays["structures/pbc"][row].astype(np.bool_),
            "targets": stored_targets(self._targets, row, atoms),
            "split": None if self._splits is None else self._splits[arrays["structures/split"][row]],
            "source": f"{self._label}:{identifier}",
        }
        if self._cutoff is None:
            return Structure(**fields)
        return StructureWithEdges(**fields, edges=self._stored_edges(row, atoms), cutoff=self._cutoff)

    def _stored_edges(self, row: int, atoms: slice) -> Edges:
        arrays: Any = self._arrays
        edges = slice(self._edges[row], self._edges[row + 1])
        sender = arrays["edges/sender"][edges].astype(np.int64)
        if "edges/shift" not in arrays:
            return Edges(arrays["atoms/degree"][atoms], sender, np.zeros((len(sender), 3), dtype=np.int8))
        return Edges(arrays["atoms/degree"][atoms], sender, arrays["edges/shift"][edges])


def stored_targets(columns: Iterable[tuple[str, Array, TargetSpec]], row: int, atoms: slice) -> dict[str, Any]:
    """Targets of a row of a shard by name; absent ones are left out, as sources do.

    Args:
        columns: name, stored column and spec of each.
        row: of the sample.
        atoms: of the sample in the columns of targets that every atom has.
    """
    values: dict[str, Any] = {}
    for name, column, spec in columns:
        value: Any = column[atoms] if spec.per_atom else column[row]
        if spec.kind == "multilabel":
            values[name] = value
        elif spec.kind == "class":
            if value >= 0:
                values[name] = value.item()
        elif not np.isnan(value).any():  # absent values are not numbers in any component
            values[name] = value if spec.per_atom or spec.shape else value.item()
    return values


def _check(folder: Path, record: ShardRecord) -> None:
    path = folder / record.file
    try:
        whole = file_checksum(path) == record.xxh3_128
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not whole:
        raise UserInputError(f"{path}: the checksum differs; `matsci-hpc shards verify {folder}` tells more")
