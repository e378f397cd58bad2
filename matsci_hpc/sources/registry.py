"""The source that a config names: each kind has a class in a module of its own, imported when it is wanted."""

from importlib import import_module
from pathlib import Path
from typing import Any, cast

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.base import Source

READERS = {
    "ase_db": ("ase_db", "AseRows"),
    "cif": ("cif", "CifSource"),
    "csv": ("csv_table", "CsvTables"),
    "extxyz": ("extxyz", "ExtxyzFrames"),
    "lmdb": ("lmdb_pickles", "LmdbEntries"),
    "mp_json": ("mp_json", "JsonDocuments"),
    "poscar": ("poscar", "PoscarSource"),
    "shards": ("shards", "ShardsSource"),
    "symmetry": ("symmetry", "SymmetrySource"),
}
"""Module in this package and class, by `source.kind`. Each class has `from_config(section, splits, staging)`."""


def open_source(config: PrepConfig, staging: Path) -> Source:
    """The source that a config names.

    Args:
        config: of the preparation.
        staging: folder for what has to be unpacked or downloaded before it can be read in any order.

    Raises:
        UserInputError: bad input.
        MachineError: reading it fails.
    """
    reader = reader_of(config.source.kind)
    source = cast("Source", reader.from_config(config.source, config.splits, staging))
    if not len(source):
        raise UserInputError(f"source: this {config.source.kind} input holds no structure; is it the right file?")
    return source


def reader_of(kind: str) -> Any:
    """The class that reads a kind of source."""
    module, name = READERS[kind]
    return getattr(import_module(f"matsci_hpc.sources.{module}"), name)
