"""Records as a source: ids, splits, classes and typed targets."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.files import changed
from matsci_hpc.sources.record_survey import survey
from matsci_hpc.sources.records import Record, RecordError, Wanted, label, one_line
from matsci_hpc.sources.values import WrongValueError, typed_values
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import MAX_SPLITS


@dataclass(frozen=True, slots=True)
class Extent:
    """How large an input is of which perhaps only a part was looked at.

    Attributes:
        inputs: records of it.
        exact: whether their number is sure; a part may have been looked at all the same.
        unpacked_bytes: of the copy that is needed of what is compressed.
    """

    inputs: int
    exact: bool
    unpacked_bytes: float = 0.0


class Records(ABC):
    """A numbered sequence of records; pickled to other ranks, so small and without open files."""

    digest: str
    """Hash of all records."""
    where: str
    """The input, for messages."""
    extent: Extent
    """Of the whole input."""

    @classmethod
    @abstractmethod
    def open(cls, config: Any, staging: Path) -> Self:
        """The records that a config names.

        Args:
            config: the `source` section.
            staging: folder where compressed files are unpacked.

        Raises:
            UserInputError: nothing to read, or no files of this kind.
            MachineError: a package is missing, or reading or unpacking fails.
        """

    @classmethod
    @abstractmethod
    def open_some(cls, config: Any, staging: Path) -> Self:
        """Some records that a config names, without reading all of the input; `extent` tells how many there are.

        Args, Raises: as `open`.
        """

    @classmethod
    def from_config(cls, config: Any, splits: Iterable[str], staging: Path) -> "RecordSource":
        """The source that a config describes.

        Args:
            config: the `source` section.
            splits: names of the splits for records that the input gives none.
            staging: folder where compressed files are unpacked.

        Raises:
            UserInputError: as `open`, or the records have nothing under a key that the config names.
            MachineError: as `open`.
        """
        return RecordSource(cls.open(config, staging), Wanted.of(config), splits, config.file_splits)

    @classmethod
    def some_of(cls, config: Any, splits: Iterable[str], staging: Path) -> "RecordSource":
        """A source of some records, as `open_some` gives them."""
        return RecordSource(cls.open_some(config, staging), Wanted.of(config), splits, config.file_splits)

    @abstractmethod
    def __len__(self) -> int:
        """Number of records."""

    @abstractmethod
    def input_bytes(self, start: int, stop: int) -> int:
        """About how many bytes of the input the records `start` to `stop - 1` are; nothing is read for it."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[Record | Rejected]:
        """The records `start` to `stop - 1`; those that are damaged as such are rejected.

        Raises:
            UserInputError: a file is not what it was when it was listed.
            MachineError: reading fails.
        """


class RecordSource:
    """Records as numbered inputs of preparation.

    Attributes:
        targets: as wanted, their classes found.
        splits: those of the input in sorted order, then those that preparation gives.
        identity: hash of the input.
        remarks: none.
        unseen: targets of which the records that were looked at have nothing, if there are others.
        doubled: number of the record that has an id first, by number of each later one.
    """

    def __init__(self, records: Records, wanted: Wanted, splits: Iterable[str], file_splits: Iterable[str]) -> None:
        self.records, self.wanted = records, wanted
        self.remarks: dict[str, int] = {}
        whole = records.extent.exact and len(records) == records.extent.inputs  # all are counted, and all are here
        found = survey(self._exactly(0, len(records)), wanted, records.where, whole=whole)
        self.unseen = found.unseen
        if len(found.splits) > MAX_SPLITS // 2:
            raise UserInputError(
                f"{records.where}: {wanted.split_key} has {len(found.splits):,} values; it should name a few splits"
            )
        self.doubled = found.doubled
        self.targets = found.specs
        self.splits = tuple(dict.fromkeys([*sorted(found.splits | set(file_splits)), *splits]))
        self.identity = xxhash.xxh3_128_hexdigest(repr((records.digest, self.splits, self.targets)).encode())

    def __len__(self) -> int:
        return len(self.records)

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the records `start` to `stop - 1`, by which heavy blocks are begun first."""
        return self.records.input_bytes(start, stop)

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """The records `start` to `stop - 1` as structures."""
        for number, record in enumerate(self._exactly(start, stop), start):
            if isinstance(record, Rejected):
                yield record
                continue
            try:
                yield self._structure(record, number)
            except (RecordError, WrongValueError) as error:
                yield Rejected(record.name, one_line(error))

    def _exactly(self, start: int, stop: int) -> Iterator[Record | Rejected]:
        """The records `start` to `stop - 1`, or an error: no record may be left out without a word.

        Raises:
            UserInputError: there are fewer or more of them, so the input is not what it was.
        """
        number = start
        for record in self.records.read(start, stop):
            number += 1
            if number > stop:
                break
            yield record
        if number != stop:
            raise changed(self.records.where)

    def _structure(self, record: Record, number: int) -> Structure:
        identifier = record.default_id
        if self.wanted.id_key is not None:
            identifier = label(record, self.wanted.id_key)
            if not identifier:
                raise RecordError(f"no id under {self.wanted.id_key}")
        if number in self.doubled:
            first = f"input {self.doubled[number]}"
            raise RecordError(f"the id {identifier} is that of {first} already, whether that one is usable or not")
        split = record.split
        if self.wanted.split_key is not None:
            split = label(record, self.wanted.split_key) or split
        atoms = record.atoms()
        keys = self.wanted.keys
        targets = typed_values(self.targets, lambda name: record.look_up(keys[name]), len(atoms.atomic_number))
        return Structure(
            id=identifier,
            atomic_number=atoms.atomic_number,
            position=np.ascontiguousarray(atoms.position),  # what was pickled may lie in memory by columns
            cell=np.ascontiguousarray(atoms.cell),
            pbc=atoms.pbc,
            targets=targets,
            split=split,
            source=record.name,
        )
