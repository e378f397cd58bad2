"""What has to be known of a trained model besides its numbers, so that it can be built, called and judged elsewhere."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from matsci_hpc.config.model import Model as ModelSection
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.learned import Learned
from matsci_hpc.training.learned_from import LearnedFrom, Lengths


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """

    run: str
    step: int
    weights: str
    checksum: str
    matsci_hpc: str
    git: str | None = None
    data: list[dict[str, Any]] = Field(default_factory=list)


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
