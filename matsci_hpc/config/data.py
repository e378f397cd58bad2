"""The part of a training config that says which samples are learned and which are held out."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from matsci_hpc.config.base import Section
from matsci_hpc.config.generated import GeneratedSymmetry, Reach


class DataSet(Section):
    """A data set, in a folder or made on the way, and how much of it an epoch holds."""

    path: Path | None = None
    """Folder of the data set."""
    source: GeneratedSymmetry | None = None
    """Instead of a folder: a generator whose samples are made while they are trained on, the very samples that
    `matsci-hpc prep` would write for it."""
    neighbors: Reach | None = None
    """With a source: its edges."""
    weight: Annotated[float, Field(ge=1e-9, le=1e9)] | None = None
    """Share of the samples of an epoch that come from here, against the weights of the other data sets. The epoch is as
    short as it can be with no data set cut, so those of a large weight for their size stand in it several times."""
    repeat: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    """How often each sample stands in an epoch. With 2.5, twice, and half of them once more, the others the epoch
    after; with 0.1, a tenth of the data set, another one each epoch."""

    @model_validator(mode="after")
    def _folder_or_source(self) -> Self:
        if (self.path is None) == (self.source is None):
            raise ValueError("give either path or source" + ("" if self.path is None else ", not both"))
        if (self.source is None) != (self.neighbors is None):
            raise ValueError(
                "a source needs neighbors: {cutoff: ...}, in angstrom"
                if self.neighbors is None
                else "neighbors: the edges of a data set in a folder are decided when it is prepared; leave it out"
            )
        if self.source is not None and self.source.endless and (self.weight is not None or self.repeat is not None):
            raise ValueError("an endless source has no weight or repeat, no sample of it comes twice")
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.source is None else self.source.title


def _form(entry: object) -> str:
    """Which of its two forms an entry has, so that a fault of the long form is told as one."""
    return "long" if isinstance(entry, dict | DataSet) else "short"


Entry = Annotated[Annotated[Path, Tag("short")] | Annotated[DataSet, Tag("long")], Discriminator(_form)]


class Staging(Section):
    """Where the shards are read during a run. Every shard of the data sets is staged, whichever split is used."""

    where: Literal["none", "local", "shared"] = "none"
    """`none` maps the shards where they lie; `local` copies them to a disk of each node first; `shared` loads one copy
    into the memory of each node, for its ranks together (ranks started by MPI). Both compare every checksum."""
    folder: Path | None = None
    """With `local`: the disk. By default the first of $SLURM_TMPDIR, $TMPDIR and /tmp. The copy stays for the next run;
    nothing removes it but the node's own clean-up."""


class Subset(Section):
    """A part of the training split, for learning curves: held-out splits stay whole."""

    samples: PositiveInt
    """How many, of all data sets together, each sample as likely as any other. Targets are scaled by the statistics of
    these samples alone."""
    seed: NonNegativeInt = 0
    """Of the draw. A smaller subset of the same seed is part of a larger one."""


class Data(Section):
    """Which samples are learned and which are held out."""

    train: list[Entry] = Field(min_length=1)
    """Data sets to train on: paths, or {path: P, weight: W}, or {path: P, repeat: R}. With a path alone, each sample
    stands in an epoch once. {source: S, neighbors: {cutoff: C}} stands for a data set without files."""
    temperature: Annotated[float, Field(ge=0.1)] | None = None
    """Instead of weights: a data set of n samples weighs n^(1/T). 1 takes them as they are, larger values give small
    data sets a larger share, up to equal shares."""
    block: PositiveInt = 1
    """So many samples that lie together on disk are drawn together; 1 is a full shuffle. Blocks read faster from a disk
    that is slow at random; keep them small next to the global batch, or its samples are too much alike."""
    split: str = "train"
    """Split of these data sets that is trained on."""
    held_out: str | None = "val"
    """Split of the same data sets that is evaluated and never trained on; null for no evaluation."""
    subset: Subset | None = None
    """Train on a part of the split; left out, on all of it."""
    staging: Staging = Staging()

    @property
    def entries(self) -> list[DataSet]:
        """The data sets, all in the long form."""
        return [each if isinstance(each, DataSet) else DataSet(path=each) for each in self.train]

    @property
    def folders(self) -> list[Path]:
        """Folders of those data sets that lie in one."""
        return [each.path for each in self.entries if each.path is not None]

    @property
    def stream(self) -> GeneratedSymmetry | None:
        """The endless source, if that is what is trained on."""
        return next((each.source for each in self.entries if each.source and self.split in each.source.endless), None)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [each.name for each in self.entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            source = next((each.source for each in self.entries if each.source and each.name == twice), None)
            if source is None:
                raise ValueError(f"{twice} is named twice; name it once")
            raise ValueError(
                f"two sources of seed {source.seed} use the same random numbers in every split that both have; "
                "give each its own seed, or one of them the splits of both"
            )
        return self

    @model_validator(mode="after")
    def _one_rule_for_the_mixture(self) -> Self:
        weights = [each.name for each in self.entries if each.weight is not None]
        repeats = [each.name for each in self.entries if each.repeat is not None]
        if weights and repeats:
            raise ValueError(f"{weights[0]} has a weight and {repeats[0]} a repeat; give weights or repeats, not both")
        if self.temperature is not None and (weights or repeats):
            kind = "weight" if weights else "repeat"
            raise ValueError(f"temperature decides how much of each data set an epoch holds, so leave out {kind}")
        if weights and len(weights) < len(self.train):
            bare = next(each.name for each in self.entries if each.weight is None)
            raise ValueError(f"{bare} has no weight; give one to every data set or to none")
        return self

    @model_validator(mode="after")
    def _endless_only_where_that_can_be(self) -> Self:
        endless = [each.source for each in self.entries if each.source is not None and each.source.endless]
        if endless and len(self.entries) > 1:
            raise ValueError(
                "an endless source trains alone: to mix it with other data sets, give it samples: {train: ...}"
            )
        if endless and self.subset is not None:
            raise ValueError(
                "subset: an endless source has no part that could be drawn; give it samples: {train: ...} instead"
            )
        if endless and self.temperature is not None:
            raise ValueError("an endless source is no mixture, so leave out temperature")
        if endless and self.held_out in endless[0].endless:
            raise ValueError(
                f"held_out: split {self.held_out!r} of the source is endless; give samples: "
                f"{{{self.held_out}: 10000}}, or held_out: null"
            )
        return self
