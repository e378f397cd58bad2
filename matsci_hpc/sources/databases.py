"""Records of databases, which give the record under a key: what those of ASE and LMDB have in common."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.sources.record_files import distinct_names, refuse_the_same
from matsci_hpc.sources.record_heads import MOST_FILES, evenly_spread
from matsci_hpc.sources.record_index import STRIDE, bytes_before
from matsci_hpc.sources.record_source import Extent, Records
from matsci_hpc.sources.records import Record
from matsci_hpc.structure import Rejected

Keys = Sequence[Any] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Listed:
    """What a database holds.

    Attributes:
        keys: of its records, in order.
        sizes: of the records, in any unit.
        state: equal as long as nobody writes to the database.
        count: of all its records, where only some were asked for.
        exact: whether that is sure.
    """

    keys: Keys
    sizes: NDArray[np.int64]
    state: object
    count: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Database:
    """One of the databases.

    Attributes:
        path: of it.
        name: that its records are known by.
        split: that all of them belong to, if the config says so.
        keys, state: as in `Listed`.
        bytes: of its file.
        marks: int64, bytes before every STRIDE-th record.
    """

    path: Path
    name: str
    split: str | None
    keys: Keys
    state: object
    bytes: int
    marks: NDArray[np.int64]


class Databases(Records):
    """The records of some databases.

    Args:
        paths: of the databases, with the split of what they hold.
        where: the input, for messages.
        most: records to list of all databases together, as many of each; None for all.
    """

    def __init__(self, paths: list[tuple[str | None, Path]], where: str, most: int | None = None) -> None:
        self.where = where
        looked_into = evenly_spread(len(paths), MOST_FILES)
        share = None if most is None else max(1, most // len(looked_into))
        count, exact = 0, True
        self.databases: list[Database] = []
        self.first = [0]
        digest = xxhash.xxh3_128()
        names = distinct_names([path for _, path in paths])
        refuse_the_same(self.file_of(path) for _, path in paths)
        for number, (name, (split, path)) in enumerate(zip(names, paths, strict=True)):
            digest.update(repr((name, split)).encode())
            listed = self.list_records(path, digest, share if number in looked_into or share is None else 0)
            count, exact = count + listed.count, exact and listed.exact
            size = self.file_of(path).stat().st_size
            ends = np.cumsum(listed.sizes, dtype=np.float64)
            before = np.append(0.0, ends[:-1])[: len(ends) : STRIDE] * (size / max(ends[-1:].sum(), 1.0))
            self.databases.append(Database(path, name, split, listed.keys, listed.state, size, before.astype(np.int64)))
            self.first.append(self.first[-1] + len(listed.keys))
        self.digest = digest.hexdigest()
        self.extent = Extent(count, exact)

    @staticmethod
    def file_of(path: Path) -> Path:
        """The file with the records of a database."""
        return path

    @abstractmethod
    def list_records(self, path: Path, digest: xxhash.xxh3_128, most: int | None) -> Listed:
        """What a database holds, all of which goes into the hash, unless only some is asked for.

        Args:
            path: of the database.
            digest: the hash.
            most: records to list.

        Raises:
            UserInputError: it cannot be read as what it should be.
            MachineError: a package is missing, or reading fails.
        """

    @abstractmethod
    def read_keys(self, database: Database, keys: Keys) -> Iterator[Record | Rejected]:
        """The records under some keys.

        Raises:
            UserInputError: the database is not what it was when it was listed.
        """

    def __len__(self) -> int:
        return self.first[-1]

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the records `start` to `stop - 1`."""
        total = 0
        for first, each in zip(self.first, self.databases, strict=False):
            count = len(each.keys)
            begin, end = (min(max(number - first, 0), count) for number in (start, stop))
            if begin < end:
                before, after = (bytes_before(each.marks, each.bytes, count, place) for place in (begin, end))
                total += after - before
        return total

    def read(self, start: int, stop: int) -> Iterator[Record | Rejected]:
        """The records `start` to `stop - 1`, counted through all databases."""
        for first, each in zip(self.first, self.databases, strict=False):
            keys = each.keys[max(start - first, 0) : max(stop - first, 0)]
            if len(keys):
                yield from self.read_keys(each, keys)
