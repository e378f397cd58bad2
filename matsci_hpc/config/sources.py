"""The `source` section of a preparation: one class for each kind of source."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from matsci_hpc.config.base import Section
from matsci_hpc.config.record_sources import (
    AseDbSource,
    CsvSource,
    ExtxyzSource,
    LmdbSource,
    MpJsonSource,
    TargetColumns,
    check_target_name,
)
from matsci_hpc.targets import MAX_SPLITS


class SymmetryClouds(Section):
    """How synthetic point clouds, labelled with their point group, are drawn; not how many."""

    kind: Literal["symmetry"]
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


def clouds_title(seed: int) -> str:
    """What messages call symmetry clouds of a seed."""
    return f"symmetry clouds of seed {seed}"


def clouds_of_splits(seed: int, splits: Iterable[str]) -> list[str]:
    """What manifests call the clouds of a seed in each of some splits: these have random numbers in common."""
    return sorted(f"split {split} of {clouds_title(seed)}" for split in splits)


class SymmetrySource(SymmetryClouds):
    """Synthetic point clouds as the input of a preparation."""

    samples: PositiveInt | Annotated[dict[str, PositiveInt], Field(min_length=1, max_length=MAX_SPLITS)]
    """Total, divided by `splits`; or the number for each split, such as {train: 2000000, val: 300000}."""


class FileSource(Section):
    """Files of a structure each in a folder, searched to the bottom, or in a tar, tar.gz, tar.bz2 or tar.xz archive."""

    kind: str
    path: Path
    properties: Path | None = None
    """CSV file with a row per structure."""
    id_column: str = "id"
    """Column of the CSV that holds the ids of the structures: file names without what follows the last point."""
    targets: TargetColumns = Field(default_factory=dict)
    """Targets by the name they get in the data set. An empty cell, na, n/a, nan, none or null means no label."""
    split_column: str | None = None
    """Column of the CSV that names the split of each structure."""


class ShardsSource(Section):
    """Finished data sets: to split, cut or merge anew, to add edges or to leave them out."""

    kind: Literal["shards"]
    path: Path | list[Path]
    """Folder of a data set, or several that become one, in this order."""
    keep_splits: bool = False
    """Samples stay in their splits; otherwise `splits` divides them anew."""
    only_splits: list[str] | None = Field(default=None, min_length=1)
    """Take only the samples of these splits."""
    targets: list[str] | dict[str, str] | None = None
    """Targets to take, such as [band_gap], or {new_name: band_gap}; left out: all of them."""
    prefix_ids: bool = False
    """Put the name of its data set before every id: DATASET/ID. Otherwise, of samples with the same id in several data
    sets the first stays, and the others go to the quarantine."""

    @property
    def paths(self) -> list[Path]:
        """Every data set."""
        return self.path if isinstance(self.path, list) else [self.path]

    @field_validator("path")
    @classmethod
    def _some_path(cls, path: Path | list[Path]) -> Path | list[Path]:
        if not path:
            raise ValueError("name a data set")
        return path

    @field_validator("targets")
    @classmethod
    def _usable_names(cls, targets: list[str] | dict[str, str] | None) -> list[str] | dict[str, str] | None:
        for name in targets or ():
            check_target_name(name)
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
    prefer: Literal["contcar", "poscar"] = "contcar"
    """Which file is the structure of a folder that holds a CONTCAR, the end of a relaxation, and a POSCAR, its
    beginning. The other goes to the quarantine."""


Source = Annotated[
    SymmetrySource
    | CifSource
    | PoscarSource
    | CsvSource
    | ExtxyzSource
    | AseDbSource
    | MpJsonSource
    | LmdbSource
    | ShardsSource,
    Field(discriminator="kind"),
]


def input_paths(source: Source) -> list[tuple[str, Path]]:
    """Files and folders that a source reads, with a name for each, for messages."""
    if isinstance(source, SymmetrySource):
        return []
    if isinstance(source, FileSource):
        table = [("properties", source.properties)] if source.properties is not None else []
        return [("input", source.path), *table]
    if isinstance(source, ShardsSource):
        return [("input", path) for path in source.paths]
    return [("input", path) for _, path in source.paths]
