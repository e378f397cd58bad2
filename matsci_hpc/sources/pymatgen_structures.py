"""Structures and molecules of pymatgen, as objects or as the documents that `as_dict` makes of them."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from matsci_hpc.sources.records import Atoms, RecordError


def is_structure_document(document: object) -> bool:
    """Whether this is what `as_dict` of a structure or molecule gives."""
    return isinstance(document, Mapping) and "sites" in document and isinstance(document["sites"], list)


def from_document(document: Mapping[str, Any]) -> Atoms:
    """The structure in what `as_dict` gave; nothing that the document names is imported or called.

    Raises:
        RecordError: it cannot be read, or is not fully ordered.
    """
    from pymatgen.core.structure import Molecule, Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # absurd lattices are refused later, with the name of the input
            found = (Structure if "lattice" in document else Molecule).from_dict(_geometry(document))
    except Exception as error:  # noqa: BLE001 - the parser raises anything on damaged documents; each becomes a reason
        text = " ".join(str(error).split())[:200]
        missing = f"{text} is missing" if isinstance(error, KeyError) else text
        raise RecordError(f"not a structure of pymatgen: {missing or type(error).__name__}") from None
    return from_pymatgen(found)


def _geometry(document: Mapping[str, Any]) -> dict[str, Any]:
    """Lattice, elements and places alone.

    Properties of sites are left out because pymatgen makes objects of them: of any class of any module they name.
    """
    sites = [
        {"species": [_only(each, _SPECIES) for each in site["species"]]} | _only(site, ("abc", "xyz"))
        for site in document["sites"]
    ]
    return {"sites": sites} | ({"lattice": _only(document["lattice"], _LATTICE)} if "lattice" in document else {})


_SPECIES = ("element", "oxidation_state", "occu")
_LATTICE = ("matrix", "pbc", "a", "b", "c", "alpha", "beta", "gamma")


def _only(document: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}


def from_pymatgen(found: Any) -> Atoms:
    """The structure of a pymatgen object.

    Raises:
        RecordError: no atoms, sites that elements share, or no chemical element.
    """
    from pymatgen.core.periodic_table import DummySpecies

    if len(found) == 0:
        raise RecordError("no atoms")
    if not found.is_ordered:
        raise RecordError("a site is shared by several elements or partly occupied")
    if any(isinstance(site.specie, DummySpecies) for site in found):
        raise RecordError("an atom is no chemical element")
    lattice = getattr(found, "lattice", None)
    with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not finite are refused later
        return Atoms(
            np.array(found.atomic_numbers, dtype=np.uint8),
            np.asarray(found.cart_coords, dtype=np.float32),
            np.zeros((3, 3), dtype=np.float32) if lattice is None else np.asarray(lattice.matrix, dtype=np.float32),
            np.zeros(3, dtype=bool) if lattice is None else np.asarray(lattice.pbc, dtype=bool),
        )
