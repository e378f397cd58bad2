"""What has to be known of a trained model besides its numbers, so that it can be built, called and judged elsewhere."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from matsci_hpc.config.model import Model as ModelSection
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.learned import Learned
from matsci_hpc.training.learned_from import LearnedFrom, Lengths


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(_Strict):
    """What a training took.

    Attributes:
        steps, samples: optimiser steps, and samples seen in them; samples and times are None where no line tells.
        time_s: of training, over all lives.
        rank_hours: time of each life times its ranks.
        nodes: hosts that the ranks ran on, as the last life noted them.
        machines: processors and GPUs of the lives.
    """

    steps: int
    samples: int | None = None
    time_s: float | None = None
    rank_hours: float | None = None
    nodes: int | None = None
    machines: tuple[str, ...] = ()


class Earlier(_Strict):
    """A run that the encoder comes from.

    Attributes:
        run: name of its folder.
        step: of the checkpoint that was begun with.
        checksum: XXH3-128 of its parameters.
        data: its data sets, as those of `Origin`.
        cost: until that step; None if its folder is gone.
    """

    run: str
    step: int
    checksum: str
    data: list[dict[str, Any]] = Field(default_factory=list)
    cost: Cost | None = None


class Origin(_Strict):
    """Where the numbers of a model come from; names of folders, never whole paths.

    Attributes:
        run: name of the run's folder.
        step: of the checkpoint.
        weights: `model`, or `average` for averaged parameters.
        checksum: XXH3-128 of the file of the checkpoint that held them.
        matsci_hpc: version of this package that trained.
        git: commit of its sources, if they lay in a repository.
        data: name, fingerprint, sizes and splits of each data set, and how many samples were learned from.
        cost: of the training; in exported files alone, since a run has its records.
        earlier: the run that this one began with, the one that that began with, and so on; likewise.
    """

    run: str
    step: int
    weights: str
    checksum: str
    matsci_hpc: str
    git: str | None = None
    data: list[dict[str, Any]] = Field(default_factory=list)
    cost: Cost | None = None
    earlier: list[Earlier] = Field(default_factory=list)


class About(_Strict):
    """Everything about a model but its numbers."""

    model: ModelSection
    learned: Learned
    precision: str
    """In which it was trained: float32, float64 or bf16."""
    origin: Origin
    elements: tuple[int, ...] | None = None
    """Atomic numbers of the training samples; None where they were not looked up."""
    lengths: Lengths | None = None
    """Unit of the positions that it was trained on; None where the run did not say."""
    edges_per_atom: float | None = None
    """Mean over all of its data; likewise."""

    @property
    def specs(self) -> dict[str, TargetSpec]:
        """Kind, unit and classes of each target."""
        return {name: each.spec for name, each in self.learned.targets.items()}

    @property
    def learned_from(self) -> LearnedFrom:
        """From what kind of data it was learned, as a checkpoint of its run says it."""
        return LearnedFrom(
            targets=self.specs,
            cutoff_angstrom=self.learned.cutoff_angstrom,
            rule=self.learned.neighbor_rule,
            lengths=self.lengths,
            edges_per_atom=self.edges_per_atom,
            earlier_elements=None if self.elements is None else list(self.elements),
        )
