"""What is written beside each embedding: id, formula, data set and targets of its sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.embeddings.choice import Chosen
from matsci_hpc.embeddings.files import texts
from matsci_hpc.loading.labels import compositions, sample_ids, target_values
from matsci_hpc.shards.layout import Array
from matsci_hpc.targets import TargetSpec

PIECE = 1 << 14
"""Samples whose compositions are in memory at once."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of all chosen samples, by their names in the file, and the targets among them."""

    columns: dict[str, Array]
    targets: dict[str, TargetSpec]


def make_table(chosen: Sequence[Chosen]) -> Table:
    """Read what is known of the chosen samples.

    Targets of one name that differ in kind, unit or classes between data sets become targets of their own, with the
    name of the data set in theirs.

    Raises:
        MachineError: a shard is missing or damaged.
    """
    targets = _targets(chosen)
    columns: dict[str, Array] = {
        "id": np.concatenate([sample_ids(each.collection, each.samples) for each in chosen]),
        "formula": texts([formula for each in chosen for formula in _formulas(each)]),
        "data_set": np.repeat(np.arange(len(chosen)), [len(each.samples) for each in chosen]).astype(np.uint16),
        "sample": np.concatenate([each.samples for each in chosen]),
        "atoms": np.concatenate([each.collection.atoms(each.samples) for each in chosen]).astype(np.int32),
        "data_sets": texts([each.name for each in chosen]),
    }
    for name, (spec, owners) in targets.items():
        columns[f"targets/{name}"] = np.concatenate(
            [
                target_values(each.collection, owners[each.name], each.samples)
                if each.name in owners
                else absent(spec, len(each.samples))
                for each in chosen
            ]
        )
    return Table(columns, {name: spec for name, (spec, _) in targets.items()})


def reduced_formula(composition: NDArray[np.int32]) -> str:
    """Reduced formula of the atoms of each element, [ELEMENTS]: TiO2, elements by rising electronegativity."""
    elements = np.flatnonzero(composition)
    counts = composition[elements] // max(1, np.gcd.reduce(composition[elements]))
    return _formula(tuple(zip(elements.tolist(), counts.tolist(), strict=True)))


@lru_cache(maxsize=1 << 16)
def _formula(atoms: tuple[tuple[int, int], ...]) -> str:
    symbols, rank = _elements()
    ordered = sorted(atoms, key=lambda pair: rank[pair[0]])
    return "".join(symbols[number] + (str(count) if count > 1 else "") for number, count in ordered)


@cache
def _elements() -> tuple[list[str], list[float]]:
    """Symbols by atomic number, and what to order them by: the electronegativity, where it is known."""
    from ase.data import chemical_symbols
    from pymatgen.core.periodic_table import Element

    negativity = {each.Z: each.data.get("X") for each in Element}
    return list(chemical_symbols), [float(negativity.get(z) or 9.0) for z in range(len(chemical_symbols))]


def _formulas(chosen: Chosen) -> list[str]:
    found: list[str] = []
    for start in range(0, len(chosen.samples), PIECE):
        some = chosen.samples[start : start + PIECE]
        found += [reduced_formula(each) for each in compositions(chosen.collection, some)]
    return found


def _targets(chosen: Sequence[Chosen]) -> dict[str, tuple[TargetSpec, dict[str, str]]]:
    """By name in the file: kind of a target, and by data set what it is called there."""
    kinds: dict[str, list[TargetSpec]] = {}
    for each in chosen:
        for name, spec in each.collection.targets.items():
            if spec.is_number and spec not in kinds.setdefault(name, []):
                kinds[name].append(spec)
    found: dict[str, tuple[TargetSpec, dict[str, str]]] = {}
    for each in chosen:
        for name, spec in each.collection.targets.items():
            if spec.is_number:
                own = name if len(kinds[name]) == 1 else f"{name} ({each.name.replace('/', '_')})"
                found.setdefault(own, (spec, {}))[1][each.name] = name
    return found


def absent(spec: TargetSpec, count: int) -> Array:
    """Values of a target that none of some samples carries."""
    if spec.kind == "multilabel":
        return np.full((count, len(spec.classes or ())), 255, dtype=np.uint8)
    if spec.kind == "class":
        return np.full(count, -1, dtype=np.int16)
    return np.full(count, np.nan, dtype=np.float32)
