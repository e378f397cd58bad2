"""The part of a training config that stands for a data set without files."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from matsci_hpc.config.base import Section
from matsci_hpc.config.sources import SymmetryClouds, clouds_title
from matsci_hpc.targets import MAX_SPLITS

MAX_SAMPLES = 2**40
"""Of a split, far more than any run trains on."""


def _endless_training() -> dict[str, PositiveInt | Literal["endless"]]:
    return {"train": "endless", "val": 10_000}


class GeneratedSymmetry(SymmetryClouds):
    """Synthetic point clouds that are made while they are trained on."""

    samples: dict[str, PositiveInt | Literal["endless"]] = Field(
        default_factory=_endless_training, min_length=1, max_length=MAX_SPLITS
    )
    """Of each split. `endless`: training goes through the samples in the order of their numbers, and none ever comes
    twice; one split may be so. With numbers, each epoch has the same samples in another order."""
    epoch: PositiveInt = 2_000_000
    """Of an endless split: samples that make an epoch. It decides nothing but where epochs are counted, and that the
    last step of each is as short as it has to be."""

    @field_validator("samples")
    @classmethod
    def _countable(cls, samples: dict[str, int | str]) -> dict[str, int | str]:
        endless = [split for split, count in samples.items() if count == "endless"]
        if len(endless) > 1:
            raise ValueError(f"{' and '.join(endless)} cannot both be endless; give the number of all but one")
        large = [split for split, count in samples.items() if isinstance(count, int) and count > MAX_SAMPLES]
        if large:
            raise ValueError(f"{large[0]}: {MAX_SAMPLES:,} is the most; write endless for more")
        return samples

    @property
    def endless(self) -> tuple[str, ...]:
        """The split without end, if there is one."""
        return tuple(split for split, count in self.samples.items() if count == "endless")

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each split; an endless one has `MAX_SAMPLES`."""
        return {split: MAX_SAMPLES if isinstance(count, str) else count for split, count in self.samples.items()}

    @property
    def title(self) -> str:
        """What messages call the data."""
        return clouds_title(self.seed)


class Reach(Section):
    """The edges of samples that are made on the way, by the rule of preparation."""

    cutoff: PositiveFloat
    """Angstrom. It has to reach over the whole of every sample, so that planning knows the number of edges without
    making the sample: clouds have a radius of 1, so 2.0 or more."""
