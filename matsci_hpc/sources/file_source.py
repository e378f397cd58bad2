"""Structures from files of one each, alone or joined with a table of properties."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import xxhash

from matsci_hpc.config.sources import FileSource as FileConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.files import InputFile, list_inputs
from matsci_hpc.sources.properties import PropertyTable, read_properties
from matsci_hpc.sources.quick_cif import Atoms
from matsci_hpc.structure import Rejected, Structure


class UnusableFileError(ValueError):
    """A file that gives no structure; the message is the reason."""


class FileSource(ABC):
    """Files of one structure each, in order of their names. What format they have is said by subclasses."""

    suffixes: ClassVar[tuple[str, ...]]
    """Which files are meant, as `list_inputs` takes it."""
    called: ClassVar[str]
    """What messages call such a file."""

    @staticmethod
    @abstractmethod
    def identifier(name: str) -> str:
        """The id of the structure in a file of this name, which begins with its folders."""

    @staticmethod
    @abstractmethod
    def parse(data: bytes) -> Atoms:
        """The structure in a file.

        Raises:
            UnusableFileError: with the reason.
        """

    def precedence(self, name: str) -> int:  # noqa: ARG002 - for subclasses
        """Of several files with the same id, the one with the lowest number keeps it, and of these the first."""
        return 0

    def __init__(self, inputs: list[InputFile], table: PropertyTable, splits: Iterable[str]) -> None:
        self.inputs = inputs
        # A sample without a split of its own is given one of `splits` by preparation, so both kinds of names count.
        self.splits = tuple(dict.fromkeys([*sorted(set(table.splits.values())), *splits]))
        self.table = table
        self.targets = table.targets
        identifiers = [self.identifier(each.name) for each in inputs]
        known = table.values.keys()
        self.remarks = {}
        present = set(identifiers)
        if table.targets or table.splits:
            self.remarks = {
                "property rows without a structure": len(known - present),
                "structures without a property row": len(present - known),
            }
        # A second file of the same id would make two samples indistinguishable: one of them keeps it.
        kept: dict[str, int] = {}
        for number in sorted(range(len(inputs)), key=lambda number: self.precedence(inputs[number].name)):
            kept.setdefault(identifiers[number], number)
        self.doubled = {
            number: inputs[kept[identifier]].name
            for number, identifier in enumerate(identifiers)
            if kept[identifier] != number
        }
        self.identity = self._digest()

    @classmethod
    def from_config(cls, config: FileConfig, splits: Iterable[str], staging: Path) -> Self:
        """List the files and read the table.

        Args:
            config: the `source` section.
            splits: names of the splits for samples that the table gives none.
            staging: folder where a compressed archive may be unpacked.

        Raises:
            UserInputError: nothing to read, a bad table, or a table of which no id fits a file.
        """
        table = read_properties(config)  # first, because it fails fast where unpacking takes minutes
        source = cls.of(config, list_inputs(config.path, cls.suffixes, staging), table, splits)
        if config.properties and not table.values.keys() & {cls.identifier(each.name) for each in source.inputs}:
            example = cls.identifier(source.inputs[0].name)
            raise UserInputError(
                f"{config.properties}: no id in column {config.id_column!r} is the name of {cls.called} "
                f"(the first file gives id {example!r})"
            )
        return source

    @classmethod
    def of(cls, config: FileConfig, inputs: list[InputFile], table: PropertyTable, splits: Iterable[str]) -> Self:  # noqa: ARG003 - for subclasses
        """The source of some files of a config."""
        return cls(inputs, table, splits)

    def __len__(self) -> int:
        return len(self.inputs)

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the files `start` to `stop - 1`, by which heavy blocks are begun first."""
        return sum(each.size for each in self.inputs[start:stop])

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """Parse the files `start` to `stop`."""
        for number in range(start, stop):
            entry = self.inputs[number]
            if number in self.doubled:
                yield Rejected(entry.name, f"the id is taken by {self.doubled[number]}")
                continue
            try:
                yield self._structure(entry)
            except UnusableFileError as error:
                yield Rejected(entry.name, str(error))

    def _structure(self, entry: InputFile) -> Structure:
        identifier = self.identifier(entry.name)
        number, position, cell = self.parse(entry.read())
        return Structure(
            id=identifier,
            atomic_number=number,
            position=position,
            cell=cell,
            pbc=np.ones(3, dtype=bool),
            targets=dict(self.table.values.get(identifier, {})),
            split=self.table.splits.get(identifier),
            source=entry.name,
        )

    def _digest(self) -> str:
        digest = xxhash.xxh3_128()
        # Rows without a structure can still bring a class or a split, and so shift the numbers of the others.
        digest.update(repr((self.splits, self.targets)).encode())
        for entry in self.inputs:
            identifier = self.identifier(entry.name)
            values = sorted(self.table.values.get(identifier, {}).items())
            digest.update(repr((entry.name, entry.size, values, self.table.splits.get(identifier))).encode())
        return digest.hexdigest()
