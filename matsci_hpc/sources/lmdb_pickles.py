"""LMDB of pickles: the layout of the Open MatSci ML Toolkit, read only if the config trusts it.

Entries are dictionaries; where the structure stands in them differs from data set to data set. A class that is not
installed here leaves a hole in its entry, which matters only if the structure or a target is in it.
"""

import io
import pickle
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.config.record_sources import LmdbSource as Config
from matsci_hpc.errors import UserInputError
from matsci_hpc.sources.databases import Database, Databases, Keys, Listed
from matsci_hpc.sources.extxyz import from_ase
from matsci_hpc.sources.files import changed, stamp
from matsci_hpc.sources.lmdb_files import DATABASE_BYTES, MOST_NAMED, databases, file_of, is_database, opened
from matsci_hpc.sources.pickle_memo import refuse_large_numbers
from matsci_hpc.sources.pymatgen_structures import from_document, from_pymatgen, is_structure_document
from matsci_hpc.sources.record_heads import MOST_RECORDS
from matsci_hpc.sources.records import Atoms, RecordError, entry, one_line
from matsci_hpc.structure import Rejected

NUMBERS = ("atomic_numbers", "numbers", "atomic_number")
POSITIONS = ("pos", "positions", "cart_coords", "coords")
FRACTIONS = ("frac_coords", "fractional_coordinates")
CELLS = ("cell", "lattice_vectors", "lattice")
_SITE = re.compile(r"[A-Z][a-z]?\S* @ (\S+) (\S+) (\S+)")


class LmdbEntries(Databases):
    """The entries of some databases whose keys are numbers, in the order of these; others hold no samples."""

    def __init__(self, config: Config, most: int | None = None) -> None:
        if not config.trust_pickle:  # the config refuses it too; nothing is unpickled without
            raise UserInputError("source.trust_pickle: loading a pickle runs programs; say true if you trust the file")
        self.config = config
        files = [(split, file) for split, path in config.paths for file in databases(path)]
        super().__init__(files, config.where, most)

    @classmethod
    def open(cls, config: Config, staging: Path) -> Self:  # noqa: ARG003 - where other sources unpack
        """The entries of the databases that a config names."""
        return cls(config)

    @classmethod
    def open_some(cls, config: Config, staging: Path) -> Self:  # noqa: ARG003 - as above
        """The first entries, in the order of LMDB, of some of the databases."""
        return cls(config, MOST_RECORDS)

    @staticmethod
    def file_of(path: Path) -> Path:
        """The file with the entries."""
        return file_of(path)

    def list_records(self, path: Path, digest: xxhash.xxh3_128, most: int | None) -> Listed:
        """The numbers among the keys in their order: a range if they are 0, 1, 2 and so on."""
        found: list[bytes] = []
        named: list[bytes] = []
        sizes = array("q")
        most_named = 0 if self.config.database else MOST_NAMED  # there are none within a named one
        exact, before = True, stamp(file_of(path))
        with opened(path, self.config.database) as (environment, database, transaction):
            state, count = (transaction.id(), before), transaction.stat(database)["entries"]
            for key, value in transaction.cursor():
                if len(found) == most:
                    exact = False
                    break
                digest.update(key)
                digest.update(value)
                like_one = len(value) == DATABASE_BYTES and len(named) < most_named
                if like_one and is_database(environment, transaction, key):
                    named.append(bytes(key))
                elif key.isdigit():
                    found.append(bytes(key))
                    sizes.append(len(value))
        if named and self.config.database is None:
            raise _choice(path, named, beside=bool(found))
        order = sorted(range(len(found)), key=lambda place: (int(found[place]), found[place]))
        keys = [found[place] for place in order]
        plain = all(key == b"%d" % place for place, key in enumerate(keys))
        bytes_of = np.array(sizes, dtype=np.int64)[order]
        return Listed(range(len(keys)) if plain else keys, bytes_of, state, len(keys) if exact else count, exact)

    def read_keys(self, database: Database, keys: Keys) -> "Iterator[Entry | Rejected]":
        """The entries under some keys."""
        chosen = [b"%d" % key if isinstance(key, int) else key for key in keys]
        with opened(database.path, self.config.database) as (environment, _, transaction):
            values = [transaction.get(key) for key in chosen]
            # Looked at afterwards: without a lock, whoever writes may use the pages that are being read.
            states = [
                (number, stamp(file_of(database.path))) for number in (transaction.id(), _last_written(environment))
            ]
        if states != [database.state] * 2 or None in values:
            raise changed(database.path)
        for key, data in zip(chosen, values, strict=True):
            shown = key.decode(errors="backslashreplace")
            name = f"{database.name} key {shown}"
            content = _unpickled(data)
            if isinstance(content, str):
                yield Rejected(name, content)
            else:
                yield Entry(name, f"{database.name}#{shown}", database.split, content, self.config)


def _choice(path: Path, named: list[bytes], *, beside: bool) -> UserInputError:
    """What is to be said of a file with named databases, of which or beside which samples would be left out."""
    names = ", ".join(key.decode(errors="backslashreplace") for key in named)
    what = f"a database called {names}" if len(named) == 1 else f"several databases, called {names}"
    if beside:
        advice = "say its name by source.database, or '' for the entries beside it"
        return UserInputError(f"{path}: holds {what}, and entries beside; {advice}")
    return UserInputError(f"{path}: holds {what}; say by source.database which one is meant")


def _last_written(environment: Any) -> int:
    """Number of the last transaction that wrote."""
    return int(environment.info()["last_txnid"])


@dataclass(frozen=True, slots=True)
class Entry:
    """One unpickled entry."""

    name: str
    default_id: str
    split: str | None
    content: dict[str, Any]
    config: Config

    def look_up(self, key: str) -> object:
        """What stands under a dotted key; tensors and arrays of one number as that number."""
        try:
            return self._look_up(key)
        except RecordError:
            raise
        except Exception as error:  # noqa: BLE001 - objects of all packages raise what they like
            raise RecordError(f"{key} cannot be read: {one_line(error)[:200]}") from None

    def _look_up(self, key: str) -> object:
        found = entry(self.content, key, attributes=True)
        _refuse_hole(found)
        if found is None:
            for dot in re.finditer(r"\.", key):
                _refuse_hole(entry(self.content, key[: dot.start()], attributes=True))
        if hasattr(found, "detach"):  # a tensor
            found = found.detach().cpu().numpy()
        return found.item() if isinstance(found, np.ndarray) and found.size == 1 else found

    def keys(self) -> list[str]:
        """Entries."""
        return [str(key) for key, value in self.content.items() if value is not None]

    def atoms(self) -> Atoms:
        """The structure: an object of pymatgen or ASE, a document, or arrays under their usual names."""
        try:
            return self._atoms()
        except RecordError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise RecordError(f"its structure cannot be read: {one_line(error)[:200]}") from None

    def _atoms(self) -> Atoms:
        found = entry(self.content, self.config.structure_key, attributes=True)
        _refuse_hole(found)
        if found is not None and hasattr(found, "is_ordered"):
            return from_pymatgen(found)
        if found is not None and hasattr(found, "numbers") and hasattr(found, "pbc"):
            return from_ase(found)
        if is_structure_document(found):
            return from_document(cast("dict[str, Any]", found))
        return self._from_arrays()

    def _from_arrays(self) -> Atoms:
        number = self._array(NUMBERS)
        fractions = self._array(FRACTIONS)
        position = self._array(POSITIONS) if fractions is None else fractions
        if number is None or position is None:
            missing = "atomic numbers" if number is None else "positions"
            raise RecordError(f"no structure and no {missing}; there are {', '.join(self.keys())[:200]}")
        number = number.reshape(-1)
        if number.size and not ((number >= 1) & (number <= 118) & (number == np.round(number))).all():
            raise RecordError("an atom is no chemical element")
        cell = self._cell()
        if position.shape != (len(number), 3):
            raise RecordError(f"{len(number)} atoms but positions of shape {list(position.shape)}")
        if fractions is not None or self._are_fractions(position):
            if cell is None:
                raise RecordError("fractional positions, and no cell")
            with np.errstate(over="ignore", invalid="ignore"):
                position = position @ cell
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused with all that is
            return Atoms(
                number.astype(np.uint8),
                position.astype(np.float32),
                np.zeros((3, 3), dtype=np.float32) if cell is None else cell.astype(np.float32),
                self._periodic(cell is not None),
            )

    def _periodic(self, has_cell: bool) -> NDArray[np.bool_]:
        """Along which lattice vectors the structure repeats: along all where the entry says nothing."""
        flags = self._array(("pbc",))
        if flags is None or not has_cell:
            return np.full(3, has_cell)
        if flags.size not in (1, 3) or not np.isin(flags, (0, 1)).all():
            raise RecordError(f"pbc is {flags.tolist()}, not three flags")
        return np.broadcast_to(flags.reshape(-1) != 0, 3).copy()

    def _are_fractions(self, position: NDArray[np.float64]) -> bool:
        if self.config.coordinates != "auto":
            return self.config.coordinates == "fractional"
        # Carolina keeps the columns of a CIF file, and OQMD its own list of sites; the toolkit copied the fractional
        # positions of both under the name of Cartesian ones.
        if "cart_coords" not in self.content:
            return False
        if "_cell_length_a" in self.content:
            return True
        sites = [_SITE.fullmatch(str(site)) for site in self.content.get("sites") or []]
        if len(sites) != len(position):
            return False
        listed = [[float(x) for x in site.groups()] for site in sites if site is not None]
        return len(listed) == len(position) and bool(np.allclose(listed, position, atol=1e-6))

    def _cell(self) -> NDArray[np.float64] | None:
        """Rows are lattice vectors, angstrom; None where there is no lattice."""
        from pymatgen.core.lattice import Lattice

        if "_cell_length_a" in self.content:
            names = [f"_cell_length_{x}" for x in "abc"] + [f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")]
            try:
                parameters = [float(self.content[name]) for name in names]
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise RecordError(f"lengths and angles of the cell cannot be read: {error}") from None
        else:
            cell = self._array(CELLS)
            if cell is None or not cell.any():
                return None
            if cell.size == 9:
                return cell.reshape(3, 3)
            if cell.size != 6:
                raise RecordError(f"the cell is an array of shape {list(cell.shape)}; it should be 3 x 3 or 6 numbers")
            parameters = cell.reshape(6).tolist()
        if min(parameters) <= 0 or max(parameters[3:]) >= 180:
            raise RecordError(f"lengths and angles of the cell are {parameters}")
        matrix: NDArray[np.float64] = np.asarray(Lattice.from_parameters(*parameters).matrix, dtype=np.float64)
        return matrix

    def _array(self, names: tuple[str, ...]) -> NDArray[np.float64] | None:
        for name in names:
            if (found := self.look_up(name)) is not None:
                try:
                    return np.array(found, dtype=np.float64)
                except (TypeError, ValueError, OverflowError):
                    raise RecordError(f"{name} is no array of numbers") from None
        return None


class _Hole:
    """Stands for an object whose class is not installed."""

    missing = "?"

    def __new__(cls, *_: object, **__: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def _take_in(self, *_: object) -> None:
        """Of what a missing kind of list or dictionary is filled with, nothing is kept."""

    __setitem__ = append = extend = add = update = _take_in


class _Unpickler(pickle.Unpickler):
    """Puts holes where classes are missing."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy.core"):  # where old versions of numpy kept it
            module = module.replace("numpy.core", "numpy._core", 1)
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return type("Hole", (_Hole,), {"missing": f"{module}.{name}"})


def _refuse_hole(found: object) -> None:
    if isinstance(found, _Hole):
        raise RecordError(f"needs the class {found.missing}, which is not installed here")


def _unpickled(data: bytes) -> dict[str, Any] | str:
    """An entry, or why there is none."""
    try:
        refuse_large_numbers(data)
        found = _Unpickler(io.BytesIO(data)).load()  # the config says that the file is trusted
        if isinstance(found, _Hole):
            return f"needs the class {found.missing}, which is not installed here"
        if not isinstance(found, dict | type) and hasattr(found, "to_dict"):
            found = found.to_dict()
        elif not isinstance(found, dict | type) and hasattr(found, "__dict__"):
            found = found.__dict__
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
        return f"not a readable pickle: {one_line(error)[:200]}"
    return found if isinstance(found, dict) else f"a {type(found).__name__}, not a dictionary"
