"""CSV tables with the text of a CIF file in one of the columns."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from matsci_hpc.config.record_sources import CsvSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.cif import CifError, parse_cif
from matsci_hpc.sources.indexed_records import IndexedRecords
from matsci_hpc.sources.record_index import DamagedFileError, RecordFile
from matsci_hpc.sources.records import Atoms, RecordError
from matsci_hpc.structure import Rejected

_MOST_FIELD_BYTES = 1 << 26
"""A CIF file of a million atoms. The usual limit of the csv module, 128 KiB, is one of a few thousand."""


class CsvTables(IndexedRecords):
    """The rows of some tables, empty ones left out."""

    suffixes = (".csv",)

    def __init__(self, files: list[RecordFile], config: Config, most: int | None = None) -> None:
        self.structure_column = config.structure_column
        self._wanted = [config.structure_column, *(each.column for each in config.targets.values())]
        self._wanted += [each for each in (config.id_column, config.split_column) if each is not None]
        self.headers: list[list[str]] = []
        super().__init__(files, config, most)

    def read(self, start: int, stop: int) -> Iterator["Row | Rejected"]:
        """The rows `start` to `stop - 1`, counted through all tables."""
        for chunk in self.index.chunks(start, stop):
            header = self.headers[chunk.number]
            file = chunk.source.file.name
            with _wide_fields():
                rows = [row for row in csv.reader(_lines(io.BytesIO(chunk.data)), strict=True) if row]
            wanted = chunk.wanted
            for number, row in enumerate(rows[wanted], chunk.first + wanted.start + 1):
                name = f"{file} row {number}"
                if len(row) > len(header):
                    yield Rejected(name, f"{len(row)} fields, and the header names {len(header)}")
                    continue
                cells = dict(zip(header, row + [""] * (len(header) - len(row)), strict=True))
                yield Row(name, f"{file}#{number}", chunk.source.split, cells, self.structure_column)

    def scan(self, stream: BinaryIO, file: RecordFile) -> Iterator[int]:
        """Where rows begin that are not empty."""
        self.headers.append([])
        lines = _Counted(stream)
        reader = csv.reader(lines, strict=True)
        try:
            with _wide_fields():
                header = next(reader, [])
            if file.cut and not lines.ended:
                raise DamagedFileError("cut off in its header")
            self._check(header, file)
            self.headers[-1] = header
            begin = lines.bytes
            while True:
                with _wide_fields():
                    row = next(reader, None)
                if row is None:
                    return
                if row:
                    yield begin
                begin = lines.bytes
        except UnicodeDecodeError as error:
            raise DamagedFileError(f"not a CSV file in UTF-8: {error} after line {reader.line_num}") from None
        except csv.Error as error:
            raise DamagedFileError(f"not a CSV file: {error} in line {reader.line_num}") from None

    def _check(self, header: list[str], file: RecordFile) -> None:
        for column in self._wanted:
            if column not in header:
                raise UserInputError(f"{file.origin}: no column {column!r}; its columns are {', '.join(header)}")
            if header.count(column) > 1:
                raise UserInputError(f"{file.origin}: {header.count(column)} columns are called {column!r}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    name: str
    default_id: str
    split: str | None
    cells: dict[str, str]
    structure_column: str

    def look_up(self, key: str) -> object:
        """The text in a column."""
        return self.cells[key]

    def keys(self) -> list[str]:
        """The columns."""
        return list(self.cells)

    def atoms(self) -> Atoms:
        """The structure in the CIF text."""
        text = self.cells[self.structure_column]
        if not text.strip():
            raise RecordError(f"column {self.structure_column} is empty")
        try:
            number, position, cell = parse_cif(text.encode())
        except CifError as error:
            raise RecordError(str(error)) from None
        return Atoms(number, position, cell, np.ones(3, dtype=bool))


class _Counted:
    """Lines of a file as text, with the bytes of those given so far, and whether the last of them has its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self.bytes = 0
        self.ended = False
        self._stream = stream

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        text = line.decode("utf-8-sig" if self.bytes == 0 else "utf-8")
        self.bytes += len(line)
        self.ended = line.endswith(b"\n")
        return text


def _lines(stream: io.BytesIO) -> Iterator[str]:
    return (line.decode() for line in stream)


@contextmanager
def _wide_fields() -> Iterator[None]:
    """Allow fields as long as a CIF file; the limit belongs to the whole process."""
    usual = csv.field_size_limit(_MOST_FIELD_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(usual)
