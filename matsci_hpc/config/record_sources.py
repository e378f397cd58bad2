"""Sections of sources whose files hold many structures each, together with what is known of them."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, PositiveInt, field_validator, model_validator

from matsci_hpc.config.base import Section
from matsci_hpc.targets import ATOM_FIELDS, MAX_TARGETS, TargetKind, TargetSpec

Target = TypeVar("Target", bound=BaseModel)


class TargetColumn(Section):
    """Where a target stands in the table of properties."""

    column: str
    """Name of the column."""
    kind: TargetKind = "regression"
    """regression, binary (0/1, true/false) or class (any text; classes are numbered in sorted order)."""
    unit: str | None = None
    """Physical unit, stored with the data and shown with every metric."""

    @field_validator("kind")
    @classmethod
    def _no_multilabel_column(cls, kind: TargetKind) -> TargetKind:
        if kind == "multilabel":
            raise ValueError("a column of a table can be regression, binary or class")
        return kind


class TargetKey(Section):
    """Where a target stands in what is stored with a structure."""

    key: str
    """Name of the entry; entries within entries are named with dots, such as `targets.regression.band_gap`."""
    kind: TargetKind = "regression"
    """regression, binary (0/1, true/false) or class (any text; classes are numbered in sorted order)."""
    unit: str | None = None
    """Physical unit, stored with the data and shown with every metric."""
    shape: tuple[PositiveInt, ...] = ()
    """Of a vector or tensor, such as [3, 3] for a stress; of one value where every atom has one, [3] for forces."""
    per_atom: bool = False
    """Whether every atom has a value."""
    classes: tuple[str, ...] | None = None
    """With `kind: class`: the names, in the order of their numbers. Left out, the whole input is searched for them."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.kind == "multilabel":
            raise ValueError("an entry can be regression, binary or class")
        if self.classes is not None and (self.kind != "class" or len(set(self.classes)) != len(self.classes)):
            raise ValueError("classes: only with `kind: class`, and each once")
        TargetSpec(kind=self.kind, shape=self.shape, per_atom=self.per_atom)
        return self


def check_target_name(name: str) -> None:
    """Raise ValueError for a name that no array in a shard and no column of a table could have."""
    if not name.isidentifier() or name in {"atoms", "edges"}:
        raise ValueError(f"a target cannot be called {name!r}: use letters, digits and _, not atoms or edges")


def usable_names(targets: dict[str, Target]) -> dict[str, Target]:
    """Check what targets are called.

    Raises:
        ValueError: a name that cannot stand in a data set.
    """
    for name, target in targets.items():
        check_target_name(name)
        if getattr(target, "per_atom", False) and name in ATOM_FIELDS:
            raise ValueError(f"a target of every atom cannot be called {name!r}; choose another name")
    return targets


TargetColumns = Annotated[dict[str, TargetColumn], Field(max_length=MAX_TARGETS), AfterValidator(usable_names)]
TargetKeys = Annotated[dict[str, TargetKey], Field(max_length=MAX_TARGETS), AfterValidator(usable_names)]


DIVIDED = "*"
"""Stands where `path` has a split, for a file whose samples have none yet."""


class FilesSource(Section):
    """One input, several, or one for each split."""

    path: Path | list[Path] | dict[str, Path]
    """A path, a list of paths, or paths by the split of what they hold: {val: val.csv, test: test.csv}. What the path
    called "*" holds is divided by `splits`."""

    @field_validator("path")
    @classmethod
    def _names_something(cls, path: Path | list[Path] | dict[str, Path]) -> Path | list[Path] | dict[str, Path]:
        if isinstance(path, list | dict) and not path:
            raise ValueError("name at least one path")
        if isinstance(path, dict) and "" in path:
            raise ValueError("a split needs a name")
        return path

    @property
    def paths(self) -> list[tuple[str | None, Path]]:
        """Every path, with the split of all that it holds if the config names one."""
        if isinstance(self.path, dict):
            return [(None if split == DIVIDED else split, path) for split, path in self.path.items()]
        return [(None, path) for path in (self.path if isinstance(self.path, list) else [self.path])]

    @property
    def where(self) -> str:
        """The paths, for messages."""
        return ", ".join(str(path) for _, path in self.paths)

    @property
    def file_splits(self) -> list[str]:
        """Splits that paths are named for."""
        return [split for split, _ in self.paths if split is not None]


class CsvSource(FilesSource):
    """Tables in CSV, plain or .csv.gz, with the text of a CIF file in one of the columns."""

    kind: Literal["csv"]
    structure_column: str = "cif"
    """Column with the CIF text."""
    id_column: str | None = None
    """Column with the id, also where it is called id. Left out, ids are made of file name and row, the first row below
    the header being 1."""
    targets: TargetColumns = Field(default_factory=dict)
    """Targets by the name they get in the data set. An empty cell, na, n/a, nan, none or null means no label."""
    split_column: str | None = None
    """Column that names the split of each structure."""


class KeyedSource(FilesSource):
    """A source that stores entries by name with every structure."""

    targets: TargetKeys = Field(default_factory=dict)
    """Targets by the name they get in the data set. No entry, null, or NaN means no label."""
    id_key: str | None = None
    """Entry with the id. Left out, ids are made of file name and number, counted from 0."""
    split_key: str | None = None
    """Entry that names the split of each structure."""


class ExtxyzSource(KeyedSource):
    """Extended XYZ files (.xyz, .extxyz, also .gz), alone, in a folder or in a tar archive.

    A key names an entry of the comment line or an array; energy, forces and stress are found in either place.
    """

    kind: Literal["extxyz"]


class AseDbSource(KeyedSource):
    """Databases of ASE: SQLite (.db) or JSON (.json).

    A key names a key-value pair, a calculated property such as energy, forces or stress, or an entry of `data`.
    """

    kind: Literal["ase_db"]


class MpJsonSource(KeyedSource):
    """JSON of pymatgen and the Materials Project: .json or .jsonl, also .gz, alone, in a folder or in a tar archive.

    A file holds one document, a list of them, or one in every line. A document is a structure (`Structure.as_dict`),
    or has one under `structure_key`.
    """

    kind: Literal["mp_json"]
    structure_key: str = "structure"
    """Entry with the structure, in documents that are none themselves."""


class LmdbSource(KeyedSource):
    """LMDB of pickles, the layout of the Open MatSci ML Toolkit: files, or folders with a data.mdb."""

    kind: Literal["lmdb"]
    trust_pickle: bool = False
    """Whether whoever made the file may run programs on this machine as you: that is what loading a pickle allows."""
    database: str | None = None
    """Name of the database within the file, where it holds any; '' means the entries beside them."""
    structure_key: str = "structure"
    """Entry with the structure; where there is none, atoms, positions and cell are looked for by their usual names."""
    coordinates: Literal["auto", "cartesian", "fractional"] = "auto"
    """What the positions are. auto: what their name says, and fractional in the data sets of the toolkit that call
    fractional positions Cartesian (Carolina, OQMD)."""

    @model_validator(mode="after")
    def _is_trusted(self) -> Self:
        if not self.trust_pickle:
            raise ValueError(
                "the entries are pickles, and loading a pickle runs whatever program its maker put in; if you trust "
                "where the file comes from, say trust_pickle: true"
            )
        return self
