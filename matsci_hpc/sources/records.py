"""A record: a structure and what its file says of it; and what a config wants to know of each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.record_sources import CsvSource, KeyedSource
from matsci_hpc.sources.values import WrongValueError, text_of
from matsci_hpc.targets import TargetSpec

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class RecordError(ValueError):
    """A record that gives no structure or no such value; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Atoms:
    """What a record says of its atoms: arrays as in `Structure`."""

    atomic_number: NDArray[np.uint8]
    position: NDArray[np.float32]
    cell: NDArray[np.float32]
    pbc: NDArray[np.bool_]


class Record(Protocol):
    """One input. Nothing of it is parsed before it is asked for."""

    @property
    def name(self) -> str:
        """What people know it by, such as `val.csv row 17`."""
        ...

    @property
    def default_id(self) -> str:
        """Its id where the input has none."""
        ...

    @property
    def split(self) -> str | None:
        """The split of its file."""
        ...

    def look_up(self, key: str) -> object:
        """What stands under a key or in a column; None if nothing does.

        Raises:
            RecordError: the record cannot be read.
        """
        ...

    def keys(self) -> list[str]:
        """What can be looked up, for messages."""
        ...

    def atoms(self) -> Atoms:
        """The structure.

        Raises:
            RecordError: there is none, or not one that can be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a config wants to know of each record: specs and keys of targets, keys of id and split."""

    specs: dict[str, TargetSpec]
    keys: dict[str, str]
    id_key: str | None
    split_key: str | None

    @classmethod
    def of(cls, config: KeyedSource | CsvSource) -> "Wanted":
        """From the section of a source; classes that it does not name are still to be found."""
        if isinstance(config, CsvSource):
            specs = {name: TargetSpec(kind=each.kind, unit=each.unit) for name, each in config.targets.items()}
            keys = {name: each.column for name, each in config.targets.items()}
            return cls(specs, keys, config.id_column, config.split_column)
        specs = {
            name: TargetSpec(
                kind=each.kind, unit=each.unit, classes=each.classes, shape=each.shape, per_atom=each.per_atom
            )
            for name, each in config.targets.items()
        }
        return cls(specs, {name: each.key for name, each in config.targets.items()}, config.id_key, config.split_key)


def label(record: Record, key: str) -> str:
    """What stands under a key as text.

    Raises:
        RecordError: it cannot be read, or is nothing that a file can hold as text.
    """
    try:
        return text_of(record.look_up(key))
    except WrongValueError as fault:
        raise RecordError(f"{key} {fault}") from None


def one_line(error: Exception) -> str:
    """What an error says, the same in every process: names and ids in it may be no Unicode, objects lie anywhere."""
    text = _ADDRESS.sub("", " ".join(str(error).split())) or type(error).__name__
    return text.encode(errors="backslashreplace").decode()


def entry(document: object, key: str, *, attributes: bool = False) -> object:
    """What stands under a dotted key in mappings within mappings; None if nothing does.

    Args:
        document: a mapping.
        key: the whole key, or keys with dots between them.
        attributes: whether objects in it may be looked into as well. Methods are nothing that an input says.
    """
    if isinstance(document, Mapping) and key in document:
        return document[key]
    for part in key.split("."):
        if isinstance(document, Mapping):
            document = document.get(part)
        elif attributes and not part.startswith("_"):
            document = getattr(document, part, None)
            document = None if callable(document) else document
        else:
            document = None
        if document is None:
            return None
    return document
