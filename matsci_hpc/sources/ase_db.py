"""Databases of ASE, in SQLite or JSON."""

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from matsci_hpc.config.record_sources import AseDbSource as Config
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.sources.databases import Database, Databases, Keys, Listed
from matsci_hpc.sources.extxyz import from_ase
from matsci_hpc.sources.files import changed, stamp
from matsci_hpc.sources.record_heads import MOST_RECORDS
from matsci_hpc.sources.records import Atoms, RecordError, entry
from matsci_hpc.structure import Rejected

_BLOCK_BYTES = 1 << 20


class AseRows(Databases):
    """The rows of some databases, in the order of their numbers."""

    @classmethod
    def open(cls, config: Config, staging: Path) -> Self:  # noqa: ARG003 - where other sources unpack
        """The rows of the databases that a config names."""
        return cls(config.paths, config.where)

    @classmethod
    def open_some(cls, config: Config, staging: Path) -> Self:  # noqa: ARG003 - as above
        """The first rows of some of the databases. JSON is read whole, as ASE has no other way."""
        return cls(config.paths, config.where, MOST_RECORDS)

    def list_records(self, path: Path, digest: xxhash.xxh3_128, most: int | None) -> Listed:
        """Row numbers, ascending; those of removed rows are missing."""
        state = _state(path)  # first, so that a change from here on is seen
        if most is None:
            _hash_file(path, digest)
        try:
            rows, count = _json_rows(path, most) if _is_json(path) else _sqlite_rows(path, most)
        except Exception as error:  # noqa: BLE001 - a file of anything else raises anything
            raise UserInputError(f"{path}: cannot be read as a database of ASE: {_one_line(error)}") from None
        table = np.array(rows, dtype=np.int64).reshape(-1, 2)
        return Listed(table[:, 0].copy(), table[:, 1] + 1, state, count)

    def read_keys(self, database: Database, keys: Keys) -> "Iterator[AseRow | Rejected]":
        """The rows of some numbers."""
        connection = self._connected(database)
        for key in keys:
            row = int(key)
            name, identifier = f"{database.name} row {row}", f"{database.name}#{row}"
            try:
                yield AseRow(name, identifier, database.split, connection.get(id=row))
            except KeyError:
                _refuse_change(database)
                yield Rejected(name, "not a readable row: it is listed, and is not found by its number")
            except Exception as error:  # noqa: BLE001 - a damaged row raises anything
                yield Rejected(name, f"not a readable row: {_one_line(error)}")
        if not isinstance(connection, _Loaded):
            _refuse_change(database)

    @staticmethod
    def _connected(database: Database) -> Any:
        _refuse_change(database)
        connection = _connected(database.path)
        if not _is_json(database.path):
            return connection
        try:  # it is read whole for every row that is asked for
            loaded = _Loaded({row.id: row for row in connection.select()})
        except Exception:  # noqa: BLE001 - it could be read when it was listed
            raise changed(database.path) from None
        _refuse_change(database)
        return loaded


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
    kind = "json" if _is_json(path) else "db"
    # serial: where MPI is loaded, ASE would have all ranks read together, and each of ours reads on its own.
    database = connect(str(path), type=kind, serial=True, use_lock_file=False)
    if kind == "db":
        database._connect = partial(_open_sqlite, path)  # noqa: SLF001 - ASE would open it for writing
    return database


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _json_rows(path: Path, most: int | None) -> tuple[list[tuple[int, int]], int]:
    """As `_sqlite_rows`."""
    rows = sorted((row.id, row.natoms) for row in _connected(path).select())
    return rows[:most], len(rows)


def _sqlite_rows(path: Path, most: int | None) -> tuple[list[tuple[int, int]], int]:
    """Number and about the size of the first rows, and how many rows there are."""
    with closing(_open_sqlite(path)) as database:
        # ASE must not see another database than its own: it would make its tables in it.
        if not database.execute("select count(*) from sqlite_master where name = 'systems'").fetchone()[0]:
            raise ValueError("it has no table of systems")
        count = _connected(path).count()  # says whether it is of a version that ASE reads
        query = "select id, coalesce(length(numbers), 0) from systems order by id limit ?"
        return database.execute(query, [-1 if most is None else most]).fetchall(), count


def _state(path: Path) -> object:
    """Of JSON a hash of the whole file; of SQLite its first 100 bytes, in which every change is counted, and its stamp.

    Raises:
        UserInputError: it cannot be read, or has changes that are not in the file yet.
    """
    if _is_json(path):
        digest = xxhash.xxh3_128()
        _hash_file(path, digest)
        return digest.digest()
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise UserInputError(
            f"{path}: changes of it are still in {log.name}; end what writes to it, and bring them into the file: "
            f"sqlite3 {shlex.quote(str(path))} 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
    try:
        with path.open("rb") as file:
            return file.read(100), stamp(path)
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read: {error.strerror}") from None


def _refuse_change(database: Database) -> None:
    if _state(database.path) != database.state:
        raise changed(database.path)


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
