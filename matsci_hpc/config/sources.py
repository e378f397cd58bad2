"""The `source` section of a preparation: one class for each kind of source."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from matsci_hpc.config.base import Section
from matsci_hpc.targets import MAX_TARGETS, TargetKind


class SymmetrySource(Section):
    """Synthetic point clouds labelled with their point group."""

    kind: Literal["symmetry"]
    samples: PositiveInt | dict[str, PositiveInt]
    """Total, divided by `splits`; or the number for each split, such as {train: 2000000, val: 300000}."""
    seed: int = Field(ge=0, default=121)
    """The data are a pure function of this seed, the split and the number of the sample."""
    groups: Literal["crystallographic", "all"] | list[str] = "crystallographic"
    """The 32 crystallographic point groups; every axial and cubic group that fits; or Schoenflies names."""
    max_axial_order: int = Field(ge=2, le=24, default=12)
    """With `groups: all`: highest order of the main axis."""
    max_atoms: int = Field(ge=1, le=255, default=48)
    """Most atoms in a cloud. A group that cannot fit is an error, not a class without samples."""
    max_orbits: PositiveInt = 6
    """Most seed points in a cloud; the number that the label needs to be the true symmetry is kept."""
    min_distance: float = Field(ge=0.0, lt=0.5, default=0.05)
    """Angstrom. Clouds with two atoms nearer than this after scaling are drawn again."""
    jitter: float = Field(ge=0.0, default=0.0)
    """Angstrom. Standard deviation of normal noise on every coordinate."""
    subgroups: bool = False
    """Also write the multilabel target `subgroups`: every listed group that the cloud's group contains."""


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


class FileSource(Section):
    """Files of a structure each in a folder, searched to the bottom, or in a tar, tar.gz, tar.bz2 or tar.xz archive."""

    kind: str
    path: Path
    properties: Path | None = None
    """CSV file with a row per structure."""
    id_column: str = "id"
    """Column of the CSV that holds the ids of the structures: file names without what follows the last point."""
    targets: dict[str, TargetColumn] = Field(default_factory=dict, max_length=MAX_TARGETS)
    """Targets by the name they get in the data set. An empty cell, na, n/a, nan, none or null means no label."""
    split_column: str | None = None
    """Column of the CSV that names the split of each structure."""

    @field_validator("targets")
    @classmethod
    def _usable_names(cls, targets: dict[str, TargetColumn]) -> dict[str, TargetColumn]:
        for name in targets:
            if not name.isidentifier() or name in {"atoms", "edges"}:
                raise ValueError(f"a target cannot be called {name!r}: use letters, digits and _, not atoms or edges")
        return targets


class CifSource(FileSource):
    """CIF files. The id of a structure is the name of its file without `.cif`."""

    kind: Literal["cif"]


class PoscarSource(FileSource):
    """Structures of VASP: files called POSCAR*, CONTCAR*, *.vasp or *.poscar, in any case.

    The id of a structure is the name of its file without .vasp or .poscar; that of a file called just POSCAR or CONTCAR
    is the path of its folder.
    """

    kind: Literal["poscar"]


Source = Annotated[SymmetrySource | CifSource | PoscarSource, Field(discriminator="kind")]
