"""Crystal structures from CIF files, alone or joined with a table of properties."""

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import xxhash

from matsci_hpc.config.sources import CifSource as CifConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.files import InputFile, list_inputs
from matsci_hpc.sources.properties import PropertyTable, read_properties
from matsci_hpc.sources.quick_cif import CELL, Atoms, read_quick
from matsci_hpc.structure import Rejected, Structure

_DATA_BLOCK = re.compile(r"^data_(\S*)", re.MULTILINE)


class CifSource:
    """CIF files in order of their names. The id of a structure is its file's name without `.cif`."""

    def __init__(self, inputs: list[InputFile], table: PropertyTable, splits: Iterable[str]) -> None:
        self.inputs = inputs
        # A sample without a split of its own is given one of `splits` by preparation, so both kinds of names count.
        self.splits = tuple(dict.fromkeys([*sorted(set(table.splits.values())), *splits]))
        self.table = table
        self.targets = table.targets
        identifiers = [_identifier(each) for each in inputs]
        known = table.values.keys()
        self.remarks = {}
        present = set(identifiers)
        if table.targets or table.splits:
            self.remarks = {
                "property rows without a structure": len(known - present),
                "structures without a property row": len(present - known),
            }
        # A second file of the same id would make two samples indistinguishable: the first one in order keeps it.
        first: dict[str, int] = {}
        self.doubled = {
            number: inputs[first[identifier]].name
            for number, identifier in enumerate(identifiers)
            if first.setdefault(identifier, number) != number
        }
        self.identity = self._digest()

    @classmethod
    def from_config(cls, config: CifConfig, splits: Iterable[str], staging: Path) -> "CifSource":
        """List the files and read the table.

        Args:
            config: the `source` section.
            splits: names of the splits for samples that the table gives none.
            staging: folder where a compressed archive may be unpacked.

        Raises:
            UserInputError: nothing to read, a bad table, or a table of which no id fits a file.
        """
        table = read_properties(config)  # first, because it fails fast where unpacking takes minutes
        source = cls(list_inputs(config.path, ".cif", staging), table, splits)
        if config.properties and not table.values.keys() & {_identifier(each) for each in source.inputs}:
            example = _identifier(source.inputs[0])
            raise UserInputError(
                f"{config.properties}: no id in column {config.id_column!r} is the name of a CIF file "
                f"(the first file gives id {example!r})"
            )
        return source

    def __len__(self) -> int:
        return len(self.inputs)

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """Parse the files `start` to `stop`."""
        for number in range(start, stop):
            entry = self.inputs[number]
            if number in self.doubled:
                yield Rejected(entry.name, f"the id is taken by {self.doubled[number]}")
                continue
            try:
                yield self._parse(entry)
            except CifError as error:
                yield Rejected(entry.name, str(error))

    def _parse(self, entry: InputFile) -> Structure:
        identifier = _identifier(entry)
        number, position, cell = parse_cif(entry.read())
        return Structure(
            id=identifier,
            atomic_number=number,
            position=position,
            cell=cell,
            pbc=np.ones(3, dtype=bool),
            targets=dict(self.table.values.get(identifier, {})),
            split=self.table.splits.get(identifier),
            source=entry.name,
        )

    def _digest(self) -> str:
        digest = xxhash.xxh3_128()
        # Rows without a structure can still bring a class or a split, and so shift the numbers of the others.
        digest.update(repr((self.splits, self.targets)).encode())
        for entry in self.inputs:
            identifier = _identifier(entry)
            values = sorted(self.table.values.get(identifier, {}).items())
            digest.update(repr((entry.name, entry.size, values, self.table.splits.get(identifier))).encode())
        return digest.hexdigest()


class CifError(ValueError):
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
    return (
        np.array(structure.atomic_numbers, dtype=np.uint8),
        np.asarray(structure.cart_coords, dtype=np.float32),
        np.asarray(structure.lattice.matrix, dtype=np.float32),
    )


def _identifier(entry: InputFile) -> str:
    return PurePosixPath(entry.name).stem


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
