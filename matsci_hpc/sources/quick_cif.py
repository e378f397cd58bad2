"""A quick reader for usual CIF files, whose answers are those of pymatgen's parser to the last bit.

It knows one way only: a single data block with six cell numbers, a list of operations (or the group P 1) and a loop of
fully occupied sites of plain elements. Whatever else a file holds, doubtful syntax above all, makes it answer None, and
pymatgen decides. What it does itself follows the steps of `pymatgen.io.cif.CifParser`, so that the arithmetic is the
same: coordinates near 1/3 and 2/3 become these, sites are ordered by electronegativity, and cell and Cartesian
positions come from the same calls.

`benchmarks/cif_identity.py` compares both readers on any number of files.
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.sources.site_images import IDENTITY, Operations, all_images, operations

CELL = re.compile(r"^_cell_(length_[abc]|angle_(?:alpha|beta|gamma))\s+([+-]?[\d.]*\d)", re.MULTILINE | re.IGNORECASE)
"""Cell numbers wherever in a file they stand, as the name without `_cell_` and the value."""

Atoms = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]
"""Atomic numbers [atoms], Cartesian positions [atoms, 3] and cell [3, 3] in angstrom."""
Block = dict[str, str | list[str]]
"""Values by name; those of a loop are lists."""

_BLOCK_START = re.compile(r"^\s*data_", re.MULTILINE)
_COMMENT = re.compile(r"(\s|^)#.*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"^;.*\n(?:(?!;).*\n)*;", re.MULTILINE)
_TOKEN = re.compile(r"""[^'"\s]\S*|'.*?'(?!\S)|".*?"(?!\S)""")
_ODD_CHARACTER = re.compile(r"[^\t\n -~]")
_CELL_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:\(\d+\))?")
_UNCERTAINTY = re.compile(r"\(.+\)*")
_SYMBOL = re.compile(r"([A-Z][a-z]?)\d*[+-]?\d*")

_CELL_NAMES = tuple(f"_cell_{each}" for each in ("length_a", "length_b", "length_c"))
_CELL_NAMES += tuple(f"_cell_{each}" for each in ("angle_alpha", "angle_beta", "angle_gamma"))
_POSITION_NAMES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_OPERATION_NAMES = tuple(
    f"{each}{end}" for each in ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz") for end in ("", "_")
)
_GROUP_NAMES = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")
_OTHER_GROUP_NAMES = tuple(
    f"{each}{end}"
    for each in (
        *("_symmetry_space_group_name_H_M", "_space_group_name_Hall"),
        *("_symmetry_space_group_name_hall", "_symmetry_space_group_name_h-m"),
    )
    for end in ("", "_")
) + tuple(f"{each}_" for each in _GROUP_NAMES)
_CHARGED = ("_atom_type_oxidation_number", "_atom_site_attached_hydrogens", "_eof")
"""Names that make more than an atom of a site, or end the file."""

MOST_SITES = 4000
"""Pairs of sites are compared with each other, which would take long beyond."""
FARTHEST = 1e6
"""Fractional coordinate beyond which nothing is usual."""
LEAST_THICKNESS = 0.02
"""Angstrom; twice the distance of lattice planes at which pymatgen refuses a cell."""


def read_quick(data: bytes) -> Atoms | None:
    """The structure in a CIF file, or None where pymatgen has to look at it."""
    try:
        text = data.decode("ascii").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
    block = _read_block(text)
    if block is None or any(name in block for name in _CHARGED):
        return None
    lattice = _lattice(block)
    symmetry = _symmetry(block)
    sites = _sites(block)
    if lattice is None or symmetry is None or sites is None:
        return None
    orbits = all_images(symmetry, sites.fraction)
    if orbits is None:
        return None
    fraction, per_site = orbits
    number = np.array(sites.number, dtype=np.uint8)
    number = number.repeat(per_site) if per_site is not None else number
    # A product for each atom, as pymatgen has it: one of all atoms may round another way.
    position = np.array([np.dot(each, lattice) for each in fraction], dtype=np.float32)
    return number, position, lattice.astype(np.float32)


def _read_block(text: str) -> Block | None:
    """Names and values of the one data block."""
    if _ODD_CHARACTER.search(text):
        return None
    start = text.find("data_")
    if text.find("data_", start + 5) >= 0 and len(_BLOCK_START.findall(text)) != 1:
        return None
    head = _BLOCK_START.search(text)
    # The names of what belongs to magnetic structures, wherever they stand.
    if head is None or "_magn" in text or "_moment" in text:
        return None
    body = text[head.end() :]
    name, _, body = body.partition("\n")
    if "powder_pattern" in name or len(name.split()) > 1:
        return None
    plain = body
    if "#" in plain:
        plain = _COMMENT.sub("", plain)
    if "\n;" in plain or plain.startswith(";"):
        plain = _PARAGRAPH.sub("'?'", plain)
        if "\n;" in plain:
            return None
    # Cell numbers in comments and paragraphs count for `parse_cif`.
    if plain is not body and len(CELL.findall(text)) != len(_CELL_NAMES):
        return None
    return _names_and_values(_TOKEN.findall(plain))


def _names_and_values(tokens: list[str]) -> Block | None:
    marks = [place for place, token in enumerate(tokens) if token[0] == "_" or token[:5] == "loop_"]
    if not marks or marks[0]:
        return None
    marks.append(len(tokens))
    block: Block = {}
    values = each = 0
    last = len(marks) - 1
    while each < last:
        place = marks[each]
        each += 1
        if tokens[place] == "loop_":
            first = each
            while each < last and marks[each] == marks[each - 1] + 1 and tokens[marks[each]][0] == "_":
                each += 1
            names = tokens[place + 1 : place + 1 + each - first]
            start, stop = place + 1 + len(names), marks[each]
            if not names or start == stop or (stop - start) % len(names):
                return None
            for column, name in enumerate(names):
                block[name] = tokens[start + column : stop : len(names)]
            values += len(names)
        else:
            if marks[each] != place + 2 or tokens[place][0] != "_":
                return None
            block[tokens[place]] = tokens[place + 1]
            values += 1
    return block if len(block) == values else None  # no name twice


def _lattice(block: Block) -> NDArray[np.float64] | None:
    """The cell [3, 3] in angstrom, in double precision."""
    from pymatgen.core.lattice import Lattice

    numbers: list[float] = []
    for name in _CELL_NAMES:
        value = block.get(name)
        if not isinstance(value, str) or not _CELL_NUMBER.fullmatch(value):
            return None
        numbers.append(float(value.partition("(")[0]))
    if any(name.lower() in _CELL_NAMES and name not in _CELL_NAMES for name in block):
        return None
    a, b, c, *angles = numbers
    if not (min(numbers) > 0 and max(angles) < 180 and max(a, b, c) < FARTHEST):
        return None
    sines = [math.sin(math.radians(each)) for each in angles]
    x, y, z = (math.cos(math.radians(each)) for each in angles)
    span = 1 - x * x - y * y - z * z + 2 * x * y * z
    if span < 1e-6 or math.sqrt(span) * min(a / sines[0], b / sines[1], c / sines[2]) < LEAST_THICKNESS:
        return None
    return np.array(Lattice.from_parameters(a, b, c, *angles).matrix)


def _symmetry(block: Block) -> Operations | None:
    named = [name for name in _OPERATION_NAMES if name in block]
    if len(named) == 1:
        value = block[named[0]]
        return operations(tuple(map(_unquoted, [value] if isinstance(value, str) else value)))
    if named or any(name in block for name in _OTHER_GROUP_NAMES):
        return None
    for name in _GROUP_NAMES:
        value = block.get(name, "")
        if value:
            return IDENTITY if isinstance(value, str) and re.sub(r"[\s_]", "", _unquoted(value)) == "P1" else None
    return None


@dataclass(frozen=True, slots=True)
class _Sites:
    """Sites in the order of pymatgen: atomic numbers, and fractional coordinates float64 [sites, 3]."""

    number: list[int]
    fraction: NDArray[np.float64]


def _sites(block: Block) -> _Sites | None:
    labels = block.get("_atom_site_label")
    symbols = block.get("_atom_site_type_symbol", labels)
    columns = [block.get(name) for name in _POSITION_NAMES]
    if not isinstance(labels, list) or not isinstance(symbols, list):
        return None
    count = len(labels)
    if count > MOST_SITES or len(symbols) != count:
        return None
    if "_atom_site_occupancy" in block and not _all_occupied(block["_atom_site_occupancy"], count):
        return None
    values = [_numbers(each) for each in columns if isinstance(each, list) and len(each) == count]
    if len(values) != 3 or any(each is None for each in values):
        return None
    fraction = np.array(values, dtype=np.float64).T
    if not np.abs(fraction).max() < FARTHEST:
        return None
    for ideal in (1 / 3, 2 / 3):
        fraction[np.abs(fraction / ideal - 1) <= 1e-4] = ideal
    elements = [_element(symbol) for symbol in symbols]
    known = [element for element in elements if element is not None]
    if len(known) < count:
        return None
    order = sorted(range(count), key=lambda site: known[site][:2])
    return _Sites([known[site][2] for site in order], np.ascontiguousarray(fraction[order]))


def _all_occupied(column: str | list[str], count: int) -> bool:
    if not isinstance(column, list) or len(column) != count:
        return False
    return set(column) == {"1"} or set(_numbers(column) or [0.0]) == {1.0}


def _numbers(tokens: list[str]) -> list[float] | None:
    try:
        return [float(each) for each in tokens]
    except ValueError:
        pass
    try:
        return [float(_UNCERTAINTY.sub("", each)) for each in tokens]
    except ValueError:
        return None


@functools.lru_cache(maxsize=4096)
def _element(symbol: str) -> tuple[float, str, int] | None:
    """Electronegativity and symbol, by which sites are ordered, and atomic number of a plain element."""
    from pymatgen.core.periodic_table import Element

    found = _SYMBOL.fullmatch(symbol)
    if found is None or found[1] not in Element.__members__:
        return None
    element = Element(found[1])
    # Where there is no electronegativity, or the symbol is that of an isotope, the order has rules of its own.
    if element.symbol != found[1] or element.name != found[1] or not element.data.get("X"):
        return None
    return float(element.X), found[1], int(element.Z)


def _unquoted(token: str) -> str:
    return token[1:-1].strip() if token[0] in "'\"" else token
