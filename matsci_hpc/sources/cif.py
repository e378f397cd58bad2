"""Crystal structures from CIF files, alone or joined with a table of properties."""

import re
import warnings
from pathlib import PurePosixPath

import numpy as np

from matsci_hpc.sources.file_source import FileSource, UnusableFileError
from matsci_hpc.sources.quick_cif import CELL, Atoms, read_quick

_DATA_BLOCK = re.compile(r"^data_(\S*)", re.MULTILINE)


class CifSource(FileSource):
    """CIF files in order of their names. The id of a structure is its file's name without `.cif`."""

    suffixes = (".cif",)
    called = "a CIF file"

    @staticmethod
    def identifier(name: str) -> str:
        """The id of the structure in a file of this name."""
        return PurePosixPath(name).stem

    @staticmethod
    def parse(data: bytes) -> Atoms:
        """The structure in a file."""
        return parse_cif(data)


class CifError(UnusableFileError):
    """A CIF file that gives no structure; the message is the reason."""


def parse_cif(data: bytes) -> Atoms:
    """The one fully ordered structure in a CIF file, in the cell that the file gives.

    Args:
        data: the file.

    Returns:
        Atomic numbers uint8 [atoms], Cartesian positions float32 [atoms, 3] and cell float32 [3, 3] in angstrom.

    Raises:
        CifError: not text, not a CIF, no atoms, partial occupancy, several structures, unknown elements.
    """
    atoms = read_quick(data)
    return parse_with_pymatgen(data) if atoms is None else atoms


def parse_with_pymatgen(data: bytes) -> Atoms:
    """What `parse_cif` gives, by pymatgen alone."""
    from pymatgen.core.periodic_table import DummySpecies
    from pymatgen.io.cif import CifParser

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CifError("not a text file in UTF-8") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rounding of 0.3333 to 1/3 and the like
            structures = CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")
    except Exception as error:  # noqa: BLE001 - the parser raises anything on damaged text; each becomes a reason
        raise CifError(_one_line(error)) from None
    for name, value in CELL.findall(text):  # the parser makes some cell of any number
        if value.count(".") > 1:
            raise CifError(f"_cell_{name} is {value}")
        if float(value) <= 0 or (name.lower().startswith("angle") and float(value) >= 180):
            raise CifError(f"_cell_{name} is {value}")
    names = _DATA_BLOCK.findall(text)
    if len(names) != len(set(names)):  # the parser keeps the last one
        raise CifError("several data blocks of the same name in the file, one structure is expected")
    if len(structures) != 1:
        raise CifError(f"{len(structures)} structures in the file, one is expected")
    structure = structures[0]
    if len(structure) == 0:
        raise CifError("no atoms")
    if not structure.is_ordered:
        raise CifError("a site is shared by several elements or partly occupied")
    if any(isinstance(site.specie, DummySpecies) for site in structure):
        raise CifError("an atom is no chemical element")
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused later
        return (
            np.array(structure.atomic_numbers, dtype=np.uint8),
            np.asarray(structure.cart_coords, dtype=np.float32),
            np.asarray(structure.lattice.matrix, dtype=np.float32),
        )


def _one_line(error: Exception) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, KeyError) and cause.args:
        missing = str(cause.args[0])
        atomless = ", so it has no atoms" if missing.startswith("_atom_site") else ""
        return f"not a readable CIF: {missing} is missing{atomless}"
    if isinstance(cause, ZeroDivisionError):
        return "not a readable CIF: a loop without rows, such as one of no atoms"
    text = " ".join(str(error).split())
    return f"not a readable CIF: {text[:200]}" if text else f"not a readable CIF ({type(error).__name__})"
