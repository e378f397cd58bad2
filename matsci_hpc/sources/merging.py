"""Whether several data sets can become one: their targets, splits, names and ids."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError
from matsci_hpc.shards.layout import Array
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.targets import ATOM_FIELDS, MAX_SPLITS, MAX_TARGETS, TargetSpec


def labels(folders: list[Path], *, prefixes: bool) -> list[str]:
    """What messages and ids call each data set: its folder's name, or the whole path where names are equal.

    Raises:
        UserInputError: two are the same folder, or equal names are to become prefixes.
    """
    real = [folder.resolve() for folder in folders]
    for number, folder in enumerate(real):
        if folder in real[:number]:
            raise UserInputError(f"source.path: {folders[number]} is listed twice")
    names = [folder.name for folder in real]
    if len(set(names)) == len(names):
        return names
    if prefixes:
        twice = next(name for name in names if names.count(name) > 1)
        raise UserInputError(f"source.prefix_ids: two data sets are called {twice!r}; rename a folder")
    return [str(folder) for folder in folders]


def common_targets(
    data_sets: list[DataSet], wanted: list[str] | dict[str, str] | None
) -> tuple[dict[str, str], dict[str, TargetSpec]]:
    """Stored name and spec of every target of the new data set, by its new name.

    Args:
        data_sets: to merge.
        wanted: stored names, or stored names by new name; None for all.

    Raises:
        UserInputError: a target that no data set has, or one that means something else in another data set.
    """
    known = dict.fromkeys(name for each in data_sets for name in each.manifest.targets)
    if wanted is None:
        wanted = list(known)
    stored = dict(wanted) if isinstance(wanted, dict) else {name: name for name in wanted}
    specs: dict[str, TargetSpec] = {}
    for name, old in stored.items():
        holders = [each for each in data_sets if old in each.manifest.targets]
        if not holders:
            there = ", ".join(known) or "none at all"
            raise UserInputError(f"source.targets: no data set has a target {old!r}; there are: {there}")
        specs[name] = _same_spec(old, holders, data_sets)
        if specs[name].per_atom and name in ATOM_FIELDS:
            raise UserInputError(f"source.targets: a target of every atom cannot be called {name!r}; take another name")
    if len(specs) > MAX_TARGETS:
        raise UserInputError(
            f"{len(specs)} targets together; a data set can hold {MAX_TARGETS}: name some in source.targets"
        )
    return stored, specs


def _same_spec(name: str, holders: list[DataSet], data_sets: list[DataSet]) -> TargetSpec:
    spec = holders[0].manifest.targets[name]
    for other in holders[1:]:
        found = other.manifest.targets[name]
        parts = [part for part in TargetSpec.model_fields if getattr(found, part) != getattr(spec, part)]
        if parts:
            a, b = (_shown(getattr(each, parts[0])) for each in (spec, found))
            raise UserInputError(
                f"target {name!r} differs: its {parts[0]} is {a} in {holders[0].folder} and {b} in {other.folder}; "
                f"leave it out by source.targets, or prepare one of them again"
            )
    if spec.kind == "multilabel" and len(holders) < len(data_sets):
        lacking = next(each.folder for each in data_sets if name not in each.manifest.targets)
        raise UserInputError(
            f"target {name!r} is missing in {lacking}, and a multilabel target cannot be absent; "
            f"leave it out by source.targets"
        )
    return spec


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def common_splits(data_sets: list[DataSet], only: list[str] | None) -> tuple[str, ...]:
    """Names of the stored splits in order of their first appearance, as far as they are wanted.

    Raises:
        UserInputError: a wanted split that no data set has, or too many splits.
    """
    known = tuple(dict.fromkeys(name for each in data_sets for name in each.manifest.splits))
    for name in only or ():
        if name not in known:
            raise UserInputError(f"source.only_splits: no data set has a split {name!r}; there are: {', '.join(known)}")
    chosen = known if only is None else tuple(name for name in known if name in only)
    if len(chosen) > MAX_SPLITS:
        raise UserInputError(f"{len(chosen)} splits together; a data set can hold {MAX_SPLITS}")
    return chosen


def doubled_ids(
    pieces: Iterable[Array], total: int, identifier: Callable[[int], bytes]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs whose id an earlier input has, ascending, and for each the first input of that id.

    Hashes of 8 bytes find the few candidates, whose ids are then compared: 24 bytes of memory for an input.

    Args:
        pieces: ids, bytes [n], of all inputs in order.
        total: number of inputs.
        identifier: the id of an input.

    Returns:
        Two arrays int64 [doubled inputs].
    """
    hashes = np.empty(total, dtype=np.uint64)
    filled = 0
    for piece in pieces:
        hashes[filled : filled + len(piece)] = _hash(piece)
        filled += len(piece)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    equal = hashes[1:] == hashes[:-1]
    first_of: dict[bytes, int] = {}
    pairs = []
    for place in order[np.append(equal, False) | np.insert(equal, 0, False)].tolist():
        name = identifier(place)
        if first_of.setdefault(name, place) != place:
            pairs.append((place, first_of[name]))
    found = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _hash(ids: Array) -> NDArray[np.uint64]:
    """A hash of each id that does not depend on how far the column pads with zeros: uint64 [n]."""
    width = ids.dtype.itemsize
    padded = np.zeros((len(ids), -(-width // 8) * 8), dtype=np.uint8)
    padded[:, :width] = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), width)
    words = padded.view(np.uint64)
    total = np.zeros(len(ids), dtype=np.uint64)
    for column, word in enumerate(words.T):
        # Finalizer of MurmurHash3 over the word and its place; words of padding add nothing.
        mixed = word ^ np.uint64((column + 1) * 0x9E3779B97F4A7C15 % 2**64)
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
        total += np.where(word == 0, np.uint64(0), mixed ^ (mixed >> np.uint64(33)))
    return total
