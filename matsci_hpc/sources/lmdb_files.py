"""Files of LMDB and the databases in them, opened for reading alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matsci_hpc.errors import MachineError, UserInputError

DATABASE_BYTES = 48
"""Of what LMDB keeps of a database within a database, as an entry of the outer one: `MDB_db` in its sources."""
MOST_NAMED = 8
"""Databases within a database that a message names."""


def file_of(path: Path) -> Path:
    """The file of a database that may be a folder."""
    return path / "data.mdb" if path.is_dir() else path


def databases(path: Path) -> list[Path]:
    """A file, a folder that is a database, or the databases in a folder."""
    if not path.exists():
        raise UserInputError(f"{path}: no such file or folder")
    if path.is_file() or (path / "data.mdb").is_file():
        return [path]
    found = sorted(each for each in path.glob("*.lmdb") if each.is_file() or (each / "data.mdb").is_file())
    if not found:
        raise UserInputError(f"{path}: holds no data.mdb and no .lmdb file")
    return found


@contextmanager
def opened(path: Path, name: str | None) -> Iterator[tuple[Any, Any, Any]]:
    """A file, its main or a named database, and a transaction that reads this and has the id of the last that wrote.

    Without a lock: nothing is written, and file systems of clusters may have none.
    """
    try:
        import lmdb
    except ImportError:
        raise MachineError("source.kind lmdb needs the package lmdb: pip install matsci-hpc[lmdb]") from None
    try:
        environment = lmdb.open(
            str(path),
            subdir=path.is_dir(),
            readonly=True,
            lock=False,
            readahead=False,
            meminit=False,
            max_spare_txns=1,
            max_dbs=MOST_NAMED,
        )
        pages_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    except lmdb.Error as error:
        raise UserInputError(f"{path}: cannot be read as LMDB: {error}") from None
    file = file_of(path)
    with environment:
        if file.stat().st_size < pages_bytes:  # reading past the end of a mapped file kills the process
            raise UserInputError(f"{path}: is cut off, {file.stat().st_size:,} of {pages_bytes:,} bytes")
        try:
            database = environment.open_db(name.encode() if name else None, create=False)
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            raise UserInputError(f"{path}: source.database: it holds no database called {name!r}") from None
        with environment.begin(db=database) as transaction:
            flags = database.flags(transaction)  # type: ignore[call-arg]  # older versions ask for it
            if flags["dupsort"]:  # only the first of them would be read, as often as there are any
                raise UserInputError(f"{path}: its keys may have several values each (dupsort); write it anew without")
            yield environment, database, transaction


def is_database(environment: Any, transaction: Any, key: bytes) -> bool:
    """Whether what looks like an entry is a database within the database."""
    import lmdb

    try:
        environment.open_db(key, txn=transaction, create=False)
    except lmdb.Error:
        return False
    return True
