"""Records, each with a structure and what is known of it, as a source: ids, splits, classes and typed targets."""

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.config.record_sources import CsvSource, KeyedSource
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.values import WrongValueError, checked_classes, text_of, typed_values
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import MAX_SPLITS, TargetSpec

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


class Records(Protocol):
    """A numbered sequence of records; pickled to other ranks, so small and without open files."""

    digest: str
    """Hash of all records."""
    where: str
    """The input, for messages."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Record | Rejected]:
        """The records `start` to `stop - 1`; those that are damaged as such are rejected."""
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


class RecordSource:
    """Records as numbered inputs of preparation.

    Attributes:
        targets: as wanted, their classes found.
        splits: those of the input in sorted order, then those that preparation gives.
        identity: hash of the input.
        remarks: none.
        doubled: number of the record that has an id first, by number of each later one.
    """

    def __init__(self, records: Records, wanted: Wanted, splits: Iterable[str], file_splits: Iterable[str]) -> None:
        self.records, self.wanted = records, wanted
        self.remarks: dict[str, int] = {}
        found = _look_through(records, wanted)
        if len(found.splits) > MAX_SPLITS // 2:
            raise UserInputError(
                f"{records.where}: {wanted.split_key} has {len(found.splits):,} values; it should name a few splits"
            )
        self.doubled = found.doubled
        self.targets = {
            name: spec.model_copy(update={"classes": _classes(records, wanted, found, name)})
            if spec.kind == "class"
            else spec
            for name, spec in wanted.specs.items()
        }
        self.splits = tuple(dict.fromkeys([*sorted(found.splits | set(file_splits)), *splits]))
        self.identity = xxhash.xxh3_128_hexdigest(repr((records.digest, self.splits, self.targets)).encode())

    def __len__(self) -> int:
        return len(self.records)

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """The records `start` to `stop - 1` as structures."""
        for number, record in enumerate(self.records.read(start, stop), start):
            if isinstance(record, Rejected):
                yield record
                continue
            try:
                yield self._structure(record, number)
            except (RecordError, WrongValueError) as error:
                yield Rejected(record.name, one_line(error))

    def _structure(self, record: Record, number: int) -> Structure:
        identifier = record.default_id
        if self.wanted.id_key is not None:
            identifier = _label(record, self.wanted.id_key)
            if not identifier:
                raise RecordError(f"no id under {self.wanted.id_key}")
        if number in self.doubled:
            raise RecordError(f"the id {identifier} is that of input {self.doubled[number]} already")
        split = record.split
        if self.wanted.split_key is not None:
            split = _label(record, self.wanted.split_key) or split
        atoms = record.atoms()
        keys = self.wanted.keys
        targets = typed_values(self.targets, lambda name: record.look_up(keys[name]), len(atoms.atomic_number))
        return Structure(
            id=identifier,
            atomic_number=atoms.atomic_number,
            position=np.ascontiguousarray(atoms.position),  # what was pickled may lie in memory by columns
            cell=np.ascontiguousarray(atoms.cell),
            pbc=atoms.pbc,
            targets=targets,
            split=split,
            source=record.name,
        )


@dataclass(slots=True)
class _Found:
    """What only a look at all records tells."""

    splits: set[str]
    classes: dict[str, set[str]]
    doubled: dict[int, int]


def _look_through(records: Records, wanted: Wanted) -> _Found:
    """Ids, splits and classes of all records; the rest is left out where one look is enough.

    Raises:
        UserInputError: no record has anything under the key of a target.
    """
    unknown = [name for name, spec in wanted.specs.items() if spec.kind == "class" and spec.classes is None]
    found = _Found(set(), {name: set() for name in unknown}, {})
    unseen = set(wanted.keys.values())
    everything = bool(unknown or wanted.id_key or wanted.split_key)
    ids: array[int] = array("Q")
    known: list[str] = []
    reason = ""
    if not unseen and not everything:
        return found
    for record in records.read(0, len(records)):
        if not unseen and not everything:
            break
        code = 0
        try:
            if isinstance(record, Rejected):
                raise RecordError(record.reason)  # noqa: TRY301 - the same for every unreadable record
            known = known or record.keys()
            unseen -= {key for key in unseen if record.look_up(key) is not None}
            code = _hash(record, wanted.id_key, len(ids))
            if wanted.split_key is not None:
                found.splits.add(_label(record, wanted.split_key))
            for name in unknown:
                found.classes[name].add(_label(record, wanted.keys[name]))
        except RecordError as error:
            reason = reason or str(error)
        finally:
            ids.append(code)  # one for every record, or the numbers in `doubled` are those of others
    if unseen and known:
        key = min(unseen)
        name = next(name for name, each in wanted.keys.items() if each == key)
        raise UserInputError(
            f"{records.where}: no input has anything under {key!r} (target {name}); there are {', '.join(known[:40])}"
            + (f"; {reason}" if reason else "")
        )
    found.splits.discard("")
    if wanted.id_key is not None:
        found.doubled = _doubled(np.frombuffer(ids, dtype=np.uint64))
    return found


def _hash(record: Record, id_key: str | None, number: int) -> int:
    """64 bits of an id, 0 where there is none: in 10^8 ids two have the same by chance once in 4,000 data sets."""
    if id_key is None:
        return number
    text = _label(record, id_key)
    return xxhash.xxh3_64_intdigest(text.encode()) if text else 0


def _label(record: Record, key: str) -> str:
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


def _doubled(hashes: NDArray[np.uint64]) -> dict[int, int]:
    """The first number with the same hash, of every number that is not the first; 0 is no hash."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)) + 1
    doubled: dict[int, int] = {}
    for place in same.tolist():
        before = int(order[place - 1])
        doubled[int(order[place])] = doubled.get(before, before)
    return doubled


def _classes(records: Records, wanted: Wanted, found: _Found, name: str) -> tuple[str, ...]:
    named = wanted.specs[name].classes
    return checked_classes(found.classes[name], f"{records.where}: {wanted.keys[name]}") if named is None else named


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
