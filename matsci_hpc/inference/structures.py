"""Structures of other packages as structures of this one."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.extxyz import from_ase
from matsci_hpc.sources.pymatgen_structures import from_pymatgen
from matsci_hpc.sources.records import RecordError
from matsci_hpc.structure import Structure


def as_structures(structures: Any) -> list[Structure]:
    """One structure, or several, as a list.

    Args:
        structures: `ase.Atoms`, structures or molecules of pymatgen, `Structure`s. Their ids are `atoms.info["id"]` in
            ASE, `structure.properties["id"]` in pymatgen, else their number, counted from 0.

    Raises:
        UserInputError: something else, or one that no arrays can be made of.
    """
    if _is_one(structures):
        structures = [structures]
    if not isinstance(structures, Iterable) or isinstance(structures, str | bytes):
        raise _unknown("what was given", structures)
    return [as_structure(each, str(number)) for number, each in enumerate(structures)]


def as_structure(given: Any, number: str) -> Structure:
    """One structure; `number` is its id if it has none."""
    if isinstance(given, Structure):
        return given
    about = getattr(given, "info", None) if _is_ase(given) else getattr(given, "properties", None)
    identifier = str(about["id"]) if isinstance(about, dict) and about.get("id") is not None else number
    try:
        if _is_ase(given):
            atoms = from_ase(given)
        elif _is_pymatgen(given):
            atoms = from_pymatgen(given)
        else:
            raise _unknown(f"structure {number}", given)
    except RecordError as error:
        raise UserInputError(f"structure {identifier}: {error}") from None
    return Structure(
        id=identifier,
        atomic_number=atoms.atomic_number,
        position=np.ascontiguousarray(atoms.position),
        cell=np.ascontiguousarray(atoms.cell),
        pbc=atoms.pbc,
    )


def _is_one(given: Any) -> bool:
    return isinstance(given, Structure) or _is_ase(given) or _is_pymatgen(given)


# By what they have, not by their class: neither package is loaded for the question.


def _is_ase(given: Any) -> bool:
    return hasattr(given, "get_atomic_numbers") and hasattr(given, "pbc")


def _is_pymatgen(given: Any) -> bool:
    return hasattr(given, "cart_coords") and hasattr(given, "is_ordered")


def _unknown(what: str, given: Any) -> UserInputError:
    return UserInputError(
        f"{what} is a {type(given).__name__}; give ase.Atoms, a structure of pymatgen, or "
        "matsci_hpc.structure.Structure, one or several"
    )
