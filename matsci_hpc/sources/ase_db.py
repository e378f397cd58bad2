"""Databases of ASE, in SQLite or JSON."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.config.record_sources import AseDbSource as Config
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.sources.extxyz import from_ase
from matsci_hpc.sources.record_files import distinct_names
from matsci_hpc.sources.records import Atoms, RecordError, RecordSource, Wanted, entry
from matsci_hpc.structure import Rejected

_BLOCK_BYTES = 1 << 20


class AseRows:
    """The rows of some databases, in the order of their numbers."""

    def __init__(self, paths: list[tuple[str | None, Path]], where: str) -> None:
        self.where, self.paths = where, paths
        digest = xxhash.xxh3_128()
        self.names = distinct_names([path for _, path in paths])
        self.rows: list[NDArray[np.int64]] = []
        self.first = [0]
        for name, (split, path) in zip(self.names, paths, strict=True):
            digest.update(repr((name, split)).encode())
            _hash_file(path, digest)
            numbers = _numbers(path)
            self.rows.append(numbers)
            self.first.append(self.first[-1] + len(numbers))
        self.digest = digest.hexdigest()

    @classmethod
    def from_config(
        cls,
        config: Config,
        splits: Iterable[str],
        staging: Path,  # noqa: ARG003 - where other sources unpack
    ) -> RecordSource:
        """The source that a config describes.

        Args:
            config: the `source` section.
            splits: names of the splits for rows that the input gives none.
            staging: not used.

        Raises:
            UserInputError: a file is missing, or no database of ASE.
            MachineError: reading fails.
        """
        return RecordSource(cls(config.paths, config.where), Wanted.of(config), splits, config.file_splits)

    def __len__(self) -> int:
        return self.first[-1]

    def read(self, start: int, stop: int) -> "Iterator[AseRow | Rejected]":
        """The rows `start` to `stop - 1`, counted through all databases."""
        for number, (split, path) in enumerate(self.paths):
            first = self.first[number]
            chosen = self.rows[number][max(start - first, 0) : max(stop - first, 0)]
            if len(chosen) == 0:
                continue
            database = _connected(path)
            if path.suffix.lower() == ".json":  # which is read whole for every row that is asked for
                database = _Loaded({row.id: row for row in database.select()})
            for row in chosen.tolist():
                name, identifier = f"{self.names[number]} row {row}", f"{self.names[number]}#{row}"
                try:
                    yield AseRow(name, identifier, split, database.get(id=row))
                except Exception as error:  # noqa: BLE001 - a damaged row raises anything
                    yield Rejected(name, f"not a readable row: {_one_line(error)}")


class AseRow:
    """One row.

    Args:
        name, default_id, split: as in `Record`.
        row: an `ase.db.row.AtomsRow`.
    """

    def __init__(self, name: str, default_id: str, split: str | None, row: Any) -> None:
        self.name, self.default_id, self.split = name, default_id, split
        self._row = row

    def look_up(self, key: str) -> object:
        """A key-value pair, a calculated property, or a dotted key of `data`."""
        try:
            found = None if key.startswith("_") else self._row.get(key)
            found = None if callable(found) else found  # a method of the row: nothing that the file says
            return entry(self._row.data, key) if found is None else found
        except Exception as error:  # noqa: BLE001 - a damaged row raises anything
            raise RecordError(f"not a readable row: {_one_line(error)}") from None

    def keys(self) -> list[str]:
        """Key-value pairs, calculated properties, and entries of `data`.

        Raises:
            RecordError: the row is damaged.
        """
        from ase.calculators.calculator import all_properties

        try:
            calculated = [name for name in all_properties if self._row.get(name) is not None]
            return sorted({*self._row.key_value_pairs, *calculated, *self._row.data})
        except Exception as error:  # noqa: BLE001 - a damaged row raises anything
            raise RecordError(f"not a readable row: {_one_line(error)}") from None

    def atoms(self) -> Atoms:
        """The structure."""
        try:
            found = self._row.toatoms()
        except Exception as error:  # noqa: BLE001 - a damaged row raises anything
            raise RecordError(f"not a readable row: {_one_line(error)}") from None
        return from_ase(found)


class _Loaded:
    """Rows in memory."""

    def __init__(self, rows: dict[int, Any]) -> None:
        self._rows = rows

    def get(self, *, id: int) -> Any:  # noqa: A002 - as ASE calls it
        """A row by its number."""
        return self._rows[id]


def _connected(path: Path) -> Any:
    import ase.db

    connect: Any = ase.db.connect  # ASE is typed in parts
    kind = "json" if path.suffix.lower() == ".json" else "db"
    # serial: where MPI is loaded, ASE would have all ranks read together, and each of ours reads on its own.
    database = connect(str(path), type=kind, serial=True, use_lock_file=False)
    if kind == "db":
        database._connect = partial(_open_sqlite, path)  # noqa: SLF001 - ASE would open it for writing
    return database


def _numbers(path: Path) -> NDArray[np.int64]:
    """Row numbers, ascending; those of removed rows are missing."""
    try:
        if path.suffix.lower() == ".json":
            rows = [row.id for row in _connected(path).select()]
        else:
            rows = _sqlite_numbers(path)
    except Exception as error:  # noqa: BLE001 - a file of anything else raises anything
        raise UserInputError(f"{path}: cannot be read as a database of ASE: {_one_line(error)}") from None
    return np.array(sorted(rows), dtype=np.int64)


def _sqlite_numbers(path: Path) -> list[int]:
    with closing(_open_sqlite(path)) as database:
        # ASE must not see another database than its own: it would make its tables in it.
        if not database.execute("select count(*) from sqlite_master where name = 'systems'").fetchone()[0]:
            raise ValueError("it has no table of systems")
        _connected(path).count()  # says whether it is of a version that ASE reads
        return [row for (row,) in database.execute("select id from systems")]


def _open_sqlite(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=20, uri=True)


def _hash_file(path: Path, digest: xxhash.xxh3_128) -> None:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror}") from None
    except OSError as error:
        raise MachineError(f"{path}: reading failed: {error.strerror}; run the same command again") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
