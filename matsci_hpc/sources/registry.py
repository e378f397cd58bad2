"""The source that a config names: each kind has a class in a module of its own, imported when it is wanted."""

from importlib import import_module
from pathlib import Path
from typing import cast

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.sources.base import Source

READERS = {
    "ase_db": ("ase_db", "AseRows"),
    "cif": ("cif", "CifSource"),
    "csv": ("csv_table", "CsvTables"),
    "extxyz": ("extxyz", "ExtxyzFrames"),
    "lmdb": ("lmdb_pickles", "LmdbEntries"),
    "mp_json": ("mp_json", "JsonDocuments"),
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
    module, name = READERS[config.source.kind]
    reader = getattr(import_module(f"matsci_hpc.sources.{module}"), name)
    return cast("Source", reader.from_config(config.source, config.splits, staging))
