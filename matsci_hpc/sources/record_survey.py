"""What only a look at all records tells: the splits and classes there are, and ids that stand there twice."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.records import Record, RecordError, Wanted, label
from matsci_hpc.sources.values import checked_classes
from matsci_hpc.structure import Rejected
from matsci_hpc.targets import TargetSpec


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        splits: that records name.
        specs: of the targets, with their classes.
        doubled: number of the record that has an id first, by number of each later one.
        unseen: targets under whose keys no record has anything.
    """

    splits: set[str]
    specs: dict[str, TargetSpec]
    doubled: dict[int, int]
    unseen: tuple[str, ...]


def survey(records: Iterable[Record | Rejected], wanted: Wanted, where: str, *, whole: bool) -> Survey:
    """Look at all records, or at as many as it takes.

    Args:
        records: all of them.
        wanted: what the config names.
        where: the input, for messages.
        whole: whether there are no other records, so that a key under which nothing stands is a mistake.

    Raises:
        UserInputError: no record has anything under the key of a target, or a class target has too many classes.
    """
    classes: dict[str, set[str]] = {
        name: set() for name, spec in wanted.specs.items() if spec.kind == "class" and spec.classes is None
    }
    splits: set[str] = set()
    unseen = set(wanted.keys.values())
    everything = bool(classes or wanted.id_key or wanted.split_key)
    ids: array[int] = array("Q")
    known: list[str] = []
    readable = False
    reason = ""
    for record in records if unseen or everything else ():
        code = 0
        try:
            if isinstance(record, Rejected):
                raise RecordError(record.reason)  # noqa: TRY301 - the same for every unreadable record
            code = _hash(record, wanted.id_key, len(ids))  # first: it is the id of this one, usable or not
            known, readable = known or record.keys(), True
            unseen -= {key for key in unseen if record.look_up(key) is not None}
            if wanted.split_key is not None:
                splits.add(label(record, wanted.split_key))
            for name, found in classes.items():
                found.add(label(record, wanted.keys[name]))
        except RecordError as error:
            reason = reason or str(error)
        finally:
            ids.append(code)  # one for every record, or the numbers in `doubled` are those of others
        if not unseen and not everything:
            break
    if unseen and readable and whole:
        key = min(unseen)
        name = next(name for name, each in wanted.keys.items() if each == key)
        there = ", ".join(known[:40]) or "no keys"
        raise UserInputError(
            f"{where}: no input has anything under {key!r} (target {name}); there are {there}"
            + (f"; {reason}" if reason else "")
        )
    specs = {
        name: spec.model_copy(update={"classes": checked_classes(classes[name], f"{where}: {wanted.keys[name]}")})
        if name in classes
        else spec
        for name, spec in wanted.specs.items()
    }
    doubled = _doubled(np.frombuffer(ids, dtype=np.uint64)) if wanted.id_key is not None else {}
    return Survey(splits - {""}, specs, doubled, tuple(name for name, key in wanted.keys.items() if key in unseen))


def _hash(record: Record, id_key: str | None, number: int) -> int:
    """64 bits of an id, 0 where there is none: in 10^8 ids two have the same by chance once in 4,000 data sets."""
    if id_key is None:
        return number
    text = label(record, id_key)
    return xxhash.xxh3_64_intdigest(text.encode()) if text else 0


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
