"""The config of `matsci-hpc prep`."""

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from matsci_hpc.config.base import Folder, Section
from matsci_hpc.config.job import JobRequest
from matsci_hpc.config.sources import ShardsSource, Source, SymmetrySource
from matsci_hpc.splits import SplitBy


class Neighbors(Section):
    """The rule for edges: every ordered pair of atoms, images included, at most `cutoff` apart."""

    cutoff: PositiveFloat
    """Angstrom. Pairs at exactly this distance are edges."""
    store: bool = True
    """false: the shards hold no edges, and training finds them while loading: much less on disk, more work per
    batch, the same losses. The index still counts the edges of every sample, and the same structures are rejected."""


class PrepConfig(Section):
    """Raw structures to a data set of HDF5 shards."""

    source: Source
    out: Folder
    """Folder of the data set."""
    shard_size: PositiveInt = 4096
    """Inputs per shard, the unit of work of a rank."""
    neighbors: Neighbors
    splits: dict[str, float] = Field(default_factory=lambda: {"train": 0.9, "val": 0.05, "test": 0.05})
    """Share of each split. A hash decides the split of a sample, so it stays when data are added."""
    split_by: SplitBy = "id"
    """What is hashed: id, or formula: all samples of one reduced formula are in the same split. The shares are then
    met on average only: nothing is balanced, and where formulas are few a split may be empty. Splits that the source
    names come before."""

    job: JobRequest = JobRequest()

    @model_validator(mode="after")
    def _splits_decided_once(self) -> Self:
        if isinstance(self.source, SymmetrySource) and self.split_by != "id":
            raise ValueError("split_by: formula is for crystals and molecules; clouds have no chemistry")
        if isinstance(self.source, ShardsSource) and self.source.keep_splits:
            fields = type(self).model_fields
            for name in ("splits", "split_by"):
                # A resolved config spells the defaults out.
                if getattr(self, name) != fields[name].get_default(call_default_factory=True):
                    raise ValueError(f"{name} and source.keep_splits contradict each other: leave one of them out")
        return self

    @model_validator(mode="after")
    def _leaves_its_source_alone(self) -> Self:
        for path in self.source.paths if isinstance(self.source, ShardsSource) else ():
            if self.out.resolve().is_relative_to(path.resolve()):
                raise ValueError(f"out: {self.out} is, or lies in, a data set that is read; choose another folder")
        return self

    @field_validator("splits")
    @classmethod
    def _shares_add_up(cls, splits: dict[str, float]) -> dict[str, float]:
        if not splits or any(share < 0 for share in splits.values()):
            raise ValueError("give at least one split, none with a negative share")
        if abs(sum(splits.values()) - 1.0) > 1e-9:
            raise ValueError(f"the shares add up to {sum(splits.values()):g}, not 1")
        return splits
