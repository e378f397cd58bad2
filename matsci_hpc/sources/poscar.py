"""Crystal structures from POSCAR and CONTCAR files of VASP."""

import re
import warnings
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Self

import numpy as np

from matsci_hpc.config.sources import FileSource as FileConfig
from matsci_hpc.config.sources import PoscarSource as Config
from matsci_hpc.sources.file_source import FileSource, UnusableFileError
from matsci_hpc.sources.files import InputFile
from matsci_hpc.sources.properties import PropertyTable
from matsci_hpc.sources.quick_cif import Atoms
from matsci_hpc.structure import MAX_ATOMIC_NUMBER

_NAMED_ELEMENTS = re.compile(r"[A-Z][a-z]?(?:_\w*)?(?:/\w*)?|(?:[A-Z][a-z]?)+")
"""A word of line 6 of VASP 5 and newer: an element, perhaps with the name or hash of its potential, or several."""


PLAIN = frozenset({"poscar", "contcar"})
"""What VASP calls its files."""


class PoscarSource(FileSource):
    """POSCAR files in order of their names.

    Args:
        inputs, table, splits: as in `FileSource`.
        prefer: which file is the structure of a folder that holds both of them, contcar or poscar.
    """

    suffixes = ("poscar", "contcar", ".vasp", ".poscar")
    called = "a POSCAR file, or of the folder of one"

    def __init__(
        self, inputs: list[InputFile], table: PropertyTable, splits: Iterable[str], prefer: str = "contcar"
    ) -> None:
        self.prefer = prefer
        super().__init__(inputs, table, splits)
        self._refuse_other_at_the_top()
        size = {each.name: each.size for each in inputs}  # an empty one is not taken
        both = sum(
            _is_plain(inputs[number].name) and _is_plain(kept) and size[kept] > 0
            for number, kept in self.doubled.items()
        )
        self.remarks[f"folders with POSCAR and CONTCAR, whose {prefer.upper()} was taken"] = both

    def _refuse_other_at_the_top(self) -> None:
        """The files of the folder itself have their names as ids, two of them, and are one structure all the same."""
        top = [number for number, each in enumerate(self.inputs) if each.name.lower() in PLAIN]
        top.sort(key=lambda number: (number in self.doubled, self.precedence(self.inputs[number].name)))
        for number in top[1:]:
            self.doubled.setdefault(number, self.inputs[top[0]].name)

    @classmethod
    def of(cls, config: FileConfig, inputs: list[InputFile], table: PropertyTable, splits: Iterable[str]) -> Self:
        """The source of some files of a config."""
        return cls(inputs, table, splits, config.prefer if isinstance(config, Config) else "contcar")

    def precedence(self, name: str) -> int:
        """The preferred file of a folder keeps the id."""
        return int(PurePosixPath(name).name.lower() != self.prefer)

    @staticmethod
    def identifier(name: str) -> str:
        """The file name without .vasp or .poscar; the folder of a file that is called just POSCAR or CONTCAR."""
        path = PurePosixPath(name)
        if _is_plain(name) and path.parent != PurePosixPath():
            return path.parent.as_posix()
        return path.stem if path.suffix.lower() in {".vasp", ".poscar"} else path.name

    @staticmethod
    def parse(data: bytes) -> Atoms:
        """The structure in a file."""
        return parse_poscar(data)


def _is_plain(name: str) -> bool:
    """Whether a file is called just POSCAR or CONTCAR, as VASP calls them."""
    return PurePosixPath(name).name.lower() in PLAIN


def parse_poscar(data: bytes) -> Atoms:
    """The structure in a POSCAR file, read by pymatgen.

    Args:
        data: the file.

    Returns:
        Atomic numbers uint8 [atoms], Cartesian positions float32 [atoms, 3] and cell float32 [3, 3] in angstrom.

    Raises:
        UnusableFileError: not text, not a POSCAR, or one of VASP 4, which names no elements.
    """
    from pymatgen.io.vasp.inputs import Poscar

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableFileError("not a text file in UTF-8") from None
    lines = text.splitlines()
    if len(lines) < 8:
        raise UnusableFileError(f"not a readable POSCAR: it ends after {len(lines)} lines")
    # pymatgen makes up elements where there are none.
    if re.fullmatch(r"[\d\s]+", lines[5]):
        raise UnusableFileError(
            "line 6 names no elements, as in files of VASP 4: put a line of symbols before the counts"
        )
    words = lines[5].split()
    if not words or not all(_NAMED_ELEMENTS.fullmatch(word) for word in words):
        raise UnusableFileError("not a readable POSCAR: line 6 is no list of elements")
    _refuse_too_many_atoms(lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Poscar.from_str(text, read_velocities=False).structure
            number = [site.specie.Z for site in structure]
    except Exception as error:  # noqa: BLE001 - the parser raises anything on damaged text; each becomes a reason
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnusableFileError(f"not a readable POSCAR: {reason}") from None
    if not number:
        raise UnusableFileError("no atoms")
    if min(number) < 1 or max(number) > MAX_ATOMIC_NUMBER:  # pymatgen gives a number to names that it does not know
        raise UnusableFileError("not a readable POSCAR: line 6 names what is no chemical element")
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused later
        return (
            np.array(number, dtype=np.uint8),
            np.asarray(structure.cart_coords, dtype=np.float32),
            np.asarray(structure.lattice.matrix, dtype=np.float32),
        )


def _refuse_too_many_atoms(lines: list[str]) -> None:
    """Raise UnusableFileError where there are more atoms than lines: pymatgen would list them before it looks."""
    for count, line in enumerate(lines[6:16], 1):  # symbols may go on over some lines, as many as the counts then take
        if line.split() and line.split()[0].isdecimal():
            counts = [word for each in lines[5 + count : 5 + 2 * count] for word in each.split() if word.isdecimal()]
            if any(len(word) > 12 for word in counts) or sum(int(word) for word in counts) > len(lines):
                raise UnusableFileError(f"not a readable POSCAR: it has {len(lines)} lines, too few for its atoms")
            return
