"""The config of `matsci-hpc prep`."""

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from matsci_hpc.config.base import Folder, Section
from matsci_hpc.config.job import JobRequest
from matsci_hpc.config.sources import Source


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
    """Share of each split. A hash of a sample's id decides its split, so it stays when data are added."""

    job: JobRequest = JobRequest()

    @field_validator("splits")
    @classmethod
    def _shares_add_up(cls, splits: dict[str, float]) -> dict[str, float]:
        if not splits or any(share < 0 for share in splits.values()):
            raise ValueError("give at least one split, none with a negative share")
        if abs(sum(splits.values()) - 1.0) > 1e-9:
            raise ValueError(f"the shares add up to {sum(splits.values()):g}, not 1")
        return splits
