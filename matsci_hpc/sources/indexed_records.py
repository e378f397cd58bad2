"""Records of files that were indexed: what CSV, JSON and extended XYZ have in common."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

from matsci_hpc.sources.record_index import RecordFile, RecordIndex
from matsci_hpc.sources.record_source import Records


class IndexedRecords(Records):
    """The records of some files.

    Args:
        files: in order.
        where: the input, for messages.

    Attributes:
        index: where they lie.
    """

    def __init__(self, files: list[RecordFile], where: str) -> None:
        self.where = where
        self.index = RecordIndex(files, self.scan)
        self.digest = self.index.digest

    @abstractmethod
    def scan(self, stream: BinaryIO, file: RecordFile) -> Iterator[int]:
        """Where records begin, as `record_index.Scanner`; called once for each file, in their order."""

    def __len__(self) -> int:
        return len(self.index)

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the records `start` to `stop - 1`."""
        return self.index.input_bytes(start, stop)
