"""Extended XYZ: frames with named values in a comment line and a table of atoms, parsed by ASE."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from matsci_hpc.sources.indexed_records import IndexedRecords
from matsci_hpc.sources.record_index import DamagedFileError, RecordFile
from matsci_hpc.sources.records import Atoms, RecordError
from matsci_hpc.structure import MAX_ATOMIC_NUMBER, Rejected

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_DIGITS = 12


class ExtxyzFrames(IndexedRecords):
    """The frames of some files."""

    suffixes = (".xyz", ".extxyz")

    def scan(self, stream: BinaryIO, file: RecordFile) -> Iterator[int]:  # noqa: ARG002 - the same for every file
        """Where frames begin."""
        return _scan(stream)

    def read(self, start: int, stop: int) -> "Iterator[Frame | Rejected]":
        """The frames `start` to `stop - 1`, counted through all files."""
        for chunk in self.index.chunks(start, stop):
            stream = io.BytesIO(chunk.data)
            begins = [*_scan(stream), len(chunk.data)]
            wanted = chunk.wanted
            name = chunk.source.file.name
            for place in range(wanted.start, wanted.stop):
                number = chunk.first + place
                data = chunk.data[begins[place] : begins[place + 1]]
                yield Frame(f"{name} frame {number}", f"{name}#{number}", chunk.source.split, data)


class Frame:
    """One frame, parsed when it is asked for more than what its comment line says.

    Args:
        name, default_id, split: as in `Record`.
        data: the lines.
    """

    def __init__(self, name: str, default_id: str, split: str | None, data: bytes) -> None:
        self.name, self.default_id, self.split = name, default_id, split
        self._data = data
        self._comment: dict[str, Any] | None = None
        self._read: Any = None

    def look_up(self, key: str) -> object:
        """An entry of the comment line, an array, or energy, forces and stress wherever ASE has put them."""
        if key in (comment := self._entries()):
            return comment[key]
        atoms = self._parsed()
        results = atoms.calc.results if atoms.calc is not None else {}
        for there in (atoms.info, atoms.arrays, results):
            if key in there:
                found: object = there[key]
                return found
        return None

    def keys(self) -> list[str]:
        """Entries of the comment line and columns of atoms."""
        atoms = self._parsed()
        results = atoms.calc.results if atoms.calc is not None else {}
        usual = {"numbers", "positions", "Lattice", "Properties", "pbc"}
        return sorted({*self._entries(), *atoms.info, *atoms.arrays, *results} - usual)

    def atoms(self) -> Atoms:
        """The structure."""
        return from_ase(self._parsed())

    def _entries(self) -> dict[str, Any]:
        from ase.io.extxyz import key_val_str_to_dict

        parse: Any = key_val_str_to_dict  # ASE is typed in parts
        if self._comment is None:
            try:
                line = self._data.split(b"\n", 2)[1].decode()
                # Without `Properties` this is plain XYZ, whose comment may be anything.
                self._comment = dict(parse(line)) if "=" in line else {}
            except Exception as error:  # noqa: BLE001 - the parser raises anything on damaged text
                raise RecordError(_reason(error)) from None
        return self._comment

    def _parsed(self) -> Any:
        # Not ase.io.read, whose ranks wait for each other where MPI is loaded.
        from ase.io.extxyz import read_xyz

        if self._read is None:
            try:
                self._check_columns()
                self._read = next(iter(read_xyz(io.StringIO(self._data.decode()), 0)))
            except Exception as error:  # noqa: BLE001 - the parser raises anything on damaged text
                raise RecordError(_reason(error)) from None
        return self._read

    def _check_columns(self) -> None:
        """Raise ValueError where the columns are not those of the atoms; ASE would list any number of them first."""
        properties = self._entries().get("Properties")
        if not isinstance(properties, str):
            return
        fields = properties.split(":")
        columns = sum(max(0, int(each)) for each in fields[2::3])
        there = len(b"".join(self._data.split(b"\n", 3)[2:3]).split())
        if columns > there:
            raise ValueError(f"Properties names {columns:,} columns, and the first atom has {there}")
        if not {"pos", "positions"} & set(fields[::3]):
            raise ValueError("Properties names no column pos")


def from_ase(atoms: Any) -> Atoms:
    """The structure of an `ase.Atoms`.

    Raises:
        RecordError: an atom is no chemical element, or something is missing or of the wrong kind.
    """
    try:
        numbers = np.asarray(atoms.numbers)
        known = numbers.dtype.kind in "iuf" and bool(((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)).all())
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused with all that is
            found = Atoms(
                numbers.astype(np.uint8) if known else np.zeros(0, dtype=np.uint8),
                np.asarray(atoms.positions, dtype=np.float32),
                np.asarray(atoms.cell.array, dtype=np.float32),
                np.asarray(atoms.pbc, dtype=bool),
            )
    except Exception as error:  # noqa: BLE001 - an object from a file may lack anything
        text = " ".join(str(error).split())[:200]
        raise RecordError(f"not usable atoms of ASE: {type(error).__name__}: {text}") from None
    if not known:
        raise RecordError("an atom is no chemical element")
    return found


def _scan(stream: BinaryIO) -> Iterator[int]:
    """Where frames begin: a line with the number of atoms, the comment, and a line for each atom."""
    position, number = 0, 1
    while line := stream.readline():
        if not line.strip():  # what some programs leave between frames or at the end
            position += len(line)
            number += 1
            continue
        begin = position
        if position == 0 and line.startswith(_BYTE_ORDER_MARK):
            begin, line = len(_BYTE_ORDER_MARK), line[len(_BYTE_ORDER_MARK) :]
        if not line.strip().isdigit() or len(line.strip()) > _MAX_DIGITS:
            shown = line[:40].decode(errors="replace").strip()
            raise DamagedFileError(f"line {number} should be a number of atoms, and is {shown!r}")
        atoms = int(line)
        position = begin + len(line)
        for _ in range(atoms + 1):
            line = stream.readline()
            if not line:
                raise DamagedFileError(f"breaks off in the frame of {atoms} atoms that begins in line {number}")
            position += len(line)
        number += atoms + 2
        yield begin


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"not a readable frame: {text[:200]}" if text else f"not a readable frame ({type(error).__name__})"
