"""What the plan of a run is a function of, apart from the sizes of the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from matsci_hpc.config.data import Data
from matsci_hpc.config.train import Batch, TrainConfig
from matsci_hpc.loading.permutation import Numbers

OversizedPolicy = Literal["error", "keep", "skip"]


class SampleSizes(Protocol):
    """What planning needs to know of the data; the numbers of samples count through all data sets."""

    def split_counts(self, split: str) -> Numbers:
        """Samples of a split in each data set, int64 [data sets]."""
        ...

    def select(self, split: str, dataset: int, positions: Numbers) -> Numbers:
        """Numbers of the samples at some positions of a split of a data set, int64 [n]."""
        ...

    def atoms(self, samples: Numbers) -> Numbers:
        """Atoms of some samples, int64 [n]."""
        ...

    def edges(self, samples: Numbers) -> Numbers:
        """Edges of some samples, int64 [n]."""
        ...


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """Everything that decides which samples form which step, but for the epoch. Ranks are no part of it.

    Attributes:
        seed: of the order.
        split: trained on.
        graphs: samples of a global batch; None if batches are cut by cost.
        cost: most predicted cost of a global batch, in edges; None if batches are cut by count.
        block: samples that lie together on disk and are drawn together.
        group_above: samples of a higher predicted cost are trained in steps of their own kind; None for no grouping.
        oversized_cost: predicted cost above which a sample is oversized; None if none is.
        oversized_policy: what to do with oversized samples.
        repeats: how often each data set stands in an epoch; empty = once each.
        in_turn: samples are taken in the order of their numbers, epoch after epoch, each once: those of an endless
            source, which are in random order from the first.
    """

    seed: int
    split: str
    graphs: int | None = None
    cost: float | None = None
    block: int = 1
    group_above: float | None = None
    oversized_cost: float | None = None
    oversized_policy: OversizedPolicy = "error"
    repeats: tuple[Fraction, ...] = ()
    in_turn: bool = False

    def __post_init__(self) -> None:
        if (self.graphs is None) == (self.cost is None):
            raise ValueError("a plan cuts batches either by count or by cost")


def plan_spec(config: TrainConfig, sizes: SampleSizes, group_above: float | None = None) -> PlanSpec:
    """The spec of a run.

    Args:
        config: of the run.
        sizes: of the data sets, which weights refer to.
        group_above: from `resolve_grouping`, or from the run that is resumed.

    Raises:
        UserInputError: no sample is in the split.
    """
    batch: Batch = config.batch
    oversized = batch.oversized
    return PlanSpec(
        seed=config.seed,
        split=config.data.split,
        graphs=batch.graphs,
        cost=batch.cost,
        block=config.data.block,
        group_above=group_above,
        oversized_cost=oversized.cost if oversized else None,
        oversized_policy=oversized.policy if oversized else "error",
        repeats=repeats(config.data, sizes.split_counts(config.data.split).tolist()),
        in_turn=config.data.stream is not None,
    )


def repeats(data: Data, counts: Sequence[int]) -> tuple[Fraction, ...]:
    """How often each data set stands in an epoch.

    With weights w and n samples, data set d has the share w_d of an epoch if it stands in it (w_d / n_d) / c times for
    any c. c = min_d (w_d / n_d) is the shortest epoch in which no data set is cut. A temperature T stands for the
    weights n^(1/T), as in multilingual pretraining (Arivazhagan et al., arXiv:1907.05019).

    Args:
        data: section of the config.
        counts: samples of the split in each data set.

    Returns:
        Exact fractions; those of data sets without a sample in the split are 0.
    """
    if data.stream is not None:
        return tuple(Fraction(data.stream.epoch, count) for count in counts)
    stated = [entry.repeat for entry in data.entries]
    weights = [entry.weight for entry in data.entries]
    if data.temperature is not None:
        # Six digits, since processors may differ in the last digit of a power.
        weights = [float(f"{max(count, 1) ** (1 / data.temperature):.6g}") for count in counts]
    if any(weight is not None for weight in weights):
        density = [
            Fraction(str(w)) / n if w is not None and n else Fraction() for w, n in zip(weights, counts, strict=True)
        ]
        least = min(each for each in density if each)
        return tuple(each / least for each in density)
    return tuple(Fraction(str(r)) if r is not None else Fraction(1) for r in stated)
