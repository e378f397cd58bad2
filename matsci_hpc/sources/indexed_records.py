"""Records of files that were indexed: what CSV, JSON and extended XYZ have in common."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.record_files import list_record_files
from matsci_hpc.sources.record_heads import MOST_BYTES, MOST_BYTES_EVER, list_heads
from matsci_hpc.sources.record_index import RecordFile, RecordIndex
from matsci_hpc.sources.record_source import Extent, Records


class IndexedRecords(Records):
    """The records of some files.

    Args:
        files: in order.
        config: the `source` section.
        most: records of each file.

    Attributes:
        index: where they lie.
    """

    suffixes: ClassVar[tuple[str, ...]]
    """Of files in folders and archives."""

    def __init__(self, files: list[RecordFile], config: Any, most: int | None = None) -> None:
        self.where = config.where
        self.index = RecordIndex(files, self.scan, most)
        self.digest = self.index.digest
        self.extent = Extent(len(self.index), exact=True)

    @classmethod
    def open(cls, config: Any, staging: Path) -> Self:
        """The records of the files that a config names."""
        return cls(list_record_files(config.paths, cls.suffixes, staging), config)

    @classmethod
    def open_some(cls, config: Any, staging: Path) -> Self:
        """Records from the beginnings of some of the files."""
        most_bytes = MOST_BYTES
        while True:
            heads = list_heads(config.paths, cls.suffixes, staging, most_bytes)
            found = cls([each.file for each in heads.found], config, heads.records)
            if len(found) or not any(each.file.cut for each in heads.found):
                found.extent = heads.extent(found.index)
                return found
            if most_bytes == MOST_BYTES_EVER:
                raise UserInputError(f"{config.where}: no record ends in its first {most_bytes >> 20} MB")
            most_bytes = min(8 * most_bytes, MOST_BYTES_EVER)  # no record ends in so little

    @abstractmethod
    def scan(self, stream: BinaryIO, file: RecordFile) -> Iterator[int]:
        """Where records begin, as `record_index.Scanner`; called once for each file, in their order."""

    def __len__(self) -> int:
        return len(self.index)

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the records `start` to `stop - 1`."""
        return self.index.input_bytes(start, stop)
