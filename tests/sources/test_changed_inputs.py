"""Files that are written to between listing and reading: no record may be left out or exchanged without a word."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import lmdb
import pytest
from ase.db import connect
from record_inputs import section, write_records

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources import lmdb_pickles
from matsci_hpc.sources.lmdb_files import opened
from matsci_hpc.sources.registry import open_source

COUNT = 50


def exchange(before, after):
    """Bytes for as many others, at their last place."""

    def change(path):
        data = path.read_bytes()
        assert len(before) == len(after)
        head, found, tail = data.rpartition(before)
        assert found
        path.write_bytes(head + after + tail)
        assert path.stat().st_size == len(data)

    return change


def without_a_row(path):
    with connect(path) as database:
        del database[COUNT]


def with_another_row(path):
    with connect(path) as database:
        database.update(COUNT, number=7)


def made_anew(kind):
    """By the same program with other values: SQLite and LMDB count as many changes as before."""

    def change(path):
        path.unlink()
        write_records(kind, path, [2] * COUNT)

    return change


def with_more_behind(path):
    with path.open("ab") as file:
        file.write(path.read_bytes()[-300:])


def without_an_entry(path):
    environment = lmdb.open(str(path), subdir=False, map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.delete(b"%d" % (COUNT - 1))
    environment.close()


def blank_last_line(path):
    data = path.read_bytes()
    head, _, line = data[:-1].rpartition(b"\n")
    path.write_bytes(head + b"\n" + b" " * len(line) + b"\n")
    assert path.stat().st_size == len(data)


KINDS = {
    "csv, two rows become one": ("csv", "a.csv", exchange(b'"\n049,"', b'",049,"')),
    "csv, a quote that is not closed": ("csv", "a.csv", exchange(b'049,"', b'049"1')),
    "csv, another id": ("csv", "a.csv", exchange(b"\n049,", b"\n777,")),
    "json, two lines become one": ("mp_json", "a.jsonl", exchange(b'}\n{"id": "049', b'} {"id": "049')),
    "json, a blank line": ("mp_json", "a.jsonl", blank_last_line),
    "json, a list that is broken": ("mp_json", "a.json", exchange(b'{"id": "049', b'["id": "049')),
    "json, another id": ("mp_json", "a.json", exchange(b'{"id": "049', b'{"id": "777')),
    "extxyz, another number of atoms": ("extxyz", "a.xyz", exchange(b"1\nLattice", b"2\nLattice")),
    "extxyz, no number of atoms": ("extxyz", "a.xyz", exchange(b"1\nLattice", b"x\nLattice")),
    "extxyz, another id": ("extxyz", "a.xyz", exchange(b"id=049", b"id=777")),
    "csv, more rows": ("csv", "a.csv", with_more_behind),
    "json, more documents": ("mp_json", "a.jsonl", with_more_behind),
    "extxyz, more frames": ("extxyz", "a.xyz", with_more_behind),
    "ase_db, made anew": ("ase_db", "a.db", made_anew("ase_db")),
    "lmdb, made anew": ("lmdb", "a.lmdb", made_anew("lmdb")),
    "ase_db, a row less": ("ase_db", "a.db", without_a_row),
    "ase_db, another row": ("ase_db", "a.db", with_another_row),
    "ase_db in json, a row less": ("ase_db", "a.json", without_a_row),
    "ase_db in json, damaged": ("ase_db", "a.json", exchange(b'"number": 49', b'"number": x9')),
    "lmdb, an entry less": ("lmdb", "a.lmdb", without_an_entry),
}


def source_of(kind, path, tmp_path):
    config = PrepConfig.model_validate(
        {"source": section(kind, path), "out": tmp_path / "out", "neighbors": {"cutoff": 3.0}}
    )
    return open_source(config, tmp_path / "staging")


@pytest.mark.parametrize(("kind", "name", "change"), KINDS.values(), ids=KINDS)
def test_a_file_that_changes_after_it_was_listed(kind, name, change, tmp_path):
    path = tmp_path / name
    write_records(kind, path, [1] * COUNT)
    source = source_of(kind, path, tmp_path)
    assert len(source) == COUNT
    assert [len(list(source.read(*each))) for each in ((0, COUNT), (3, 40), (COUNT - 1, COUNT))] == [COUNT, 37, 1]
    change(path)
    with pytest.raises(UserInputError, match=f"{re.escape(str(path))}: changed while it was read"):
        list(source.read(COUNT - 5, COUNT))


def test_rows_that_change_while_a_block_is_read(tmp_path):
    path = tmp_path / "a.db"
    write_records("ase_db", path, [1] * COUNT)
    records = source_of("ase_db", path, tmp_path).read(0, COUNT)
    next(records)
    with_another_row(path)
    with pytest.raises(UserInputError, match=f"{re.escape(str(path))}: changed while it was read"):
        list(records)


def test_entries_that_change_while_a_block_is_read(tmp_path, monkeypatch):
    """By another process, as LMDB lets no process open a file twice."""
    path = tmp_path / "a.lmdb"
    write_records("lmdb", path, [1] * COUNT)
    source = source_of("lmdb", path, tmp_path)

    @contextmanager
    def and_written_to(path, name):
        with opened(path, name) as found:
            subprocess.run([sys.executable, "-c", WRITER, str(path)], check=True)
            yield found

    monkeypatch.setattr(lmdb_pickles, "opened", and_written_to)
    with pytest.raises(UserInputError, match=f"{re.escape(str(path))}: changed while it was read"):
        list(source.read(0, 3))


WRITER = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], subdir=False)
with environment.begin(write=True) as transaction:
    transaction.put(b"0", b"1")
environment.close()
"""


def test_a_database_with_changes_that_are_not_in_the_file(tmp_path):
    path = tmp_path / "a.db"
    write_records("ase_db", path, [1] * COUNT)
    source = source_of("ase_db", path, tmp_path)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("update systems set natoms = 2")
        writer.commit()
        for read in (lambda: list(source.read(0, 3)), lambda: source_of("ase_db", path, tmp_path)):
            with pytest.raises(UserInputError, match=r"a\.db: changes of it are still in a\.db-wal; .*wal_checkpoint"):
                read()
        writer.execute("pragma wal_checkpoint(truncate)")
        assert len(source_of("ase_db", path, tmp_path)) == COUNT
