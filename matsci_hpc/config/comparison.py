"""The config of `matsci-hpc compare`: ways to train, compared at equal budget over seeds and training-set sizes."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt, field_validator, model_validator

from matsci_hpc.config.base import Section
from matsci_hpc.config.run_set import RunSetConfig

Size = PositiveInt | Literal["full"]
Budget = PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)]
DECIDED = ("run_dir", "seed", "steps", "init_from", "data.subset", "evaluate.final_split", "evaluate.final_weights")
"""Keys of the base that the comparison decides itself."""


class Arm(Section):
    """One of the ways to train that are compared."""

    init_from: Path | None = None
    """Run, checkpoint or exported file whose encoder the runs of this arm begin with; left out, it is a random one."""
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """Keys of the base, `key.sub`, that this arm has otherwise. Without more words only keys of `optimizer`, `schedule`
    and `fine_tune` may differ between arms; others change the budget, and `allow` has to name them."""


class Metric(Section):
    """What arms are compared by, as evaluations.jsonl names it."""

    target: str | None = None
    """Of this target; left out, the loss of all."""
    name: str
    """Such as mae, rmse, accuracy, auroc, f1, loss."""
    better: Literal["lower", "higher"] | None = None
    """Which values are better; left out, the name tells."""

    @model_validator(mode="after")
    def _loss_alone_has_no_target(self) -> Self:
        if self.target is None and self.name != "loss":
            raise ValueError(f"metric: {self.name} is of a target; give target")
        return self


class ComparisonConfig(RunSetConfig):
    """Ways to train, compared at equal budget."""

    kind: ClassVar[str] = "comparison"
    verb: ClassVar[str] = "compare"
    by_time: ClassVar[bool] = False

    arms: dict[str, Arm] = Field(min_length=2)
    """What is compared, by name. The others are compared with the first one."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    """One run of each arm and size for each. A seed decides parameters, order of samples and which samples a subset
    holds, the same ones for every arm."""
    train_samples: Annotated[list[Size], Field(min_length=1)] = Field(default=["full"])
    """Sizes of the training set; `full` is the whole split. Smaller ones are parts of larger ones of the same seed."""
    steps: Budget | None = None
    """Optimiser steps of every run, or a list with one number for each of `train_samples`."""
    samples_seen: Budget | None = None
    """Instead of steps: samples trained on, repeats counted; rounded up to whole steps of `batch.graphs`."""
    metric: Metric | Annotated[list[Metric], Field(min_length=1)]
    """What arms are compared by: one or several. The first decides which trial is taken."""
    split: str = "test"
    """Split that the results are of. It decides nothing in any run."""
    weights: Literal["best", "last"] = "best"
    """The parameters that are evaluated on it: those of the lowest loss on `data.held_out`, or of the last step."""
    tune: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = Field(default_factory=dict)
    """Keys, each with its values: every arm is run with every combination, and for each arm and size the one that is
    best on `data.held_out`, in the mean over the seeds, is taken."""
    baselines: Path | None = None
    """CSV with columns target, metric, train_samples, name, value: results of others on the same split, drawn beside.
    Where train_samples is empty, the value is for all sizes. Columns split and data (a fingerprint) may be there, too;
    values of another split or other data than those of the runs are refused."""
    allow: list[str] = Field(default_factory=list)
    """What runs that are compared may differ in all the same: keys or sections of the base such as `batch.graphs`; or
    of their records `code`, `data`, `samples_seen`, `evaluations`, `skipped_steps`."""

    @property
    def metrics(self) -> list[Metric]:
        """All of them."""
        return self.metric if isinstance(self.metric, list) else [self.metric]

    @property
    def reference(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.arms))

    @field_validator("arms")
    @classmethod
    def _names(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        for name in arms:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,23}", name):
                raise ValueError(
                    f"{name!r} is no name of an arm: up to 24 letters, digits, dots and dashes, since folders have it"
                )
        return arms

    @field_validator("seeds", "train_samples")
    @classmethod
    def _each_once(cls, values: list[int | str]) -> list[int | str]:
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice; runs of the same seed and size would be the same run")
        return values

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.steps is None) == (self.samples_seen is None):
            raise ValueError("give either steps or samples_seen" + ("" if self.steps is None else ", not both"))
        for key, budget in (("steps", self.steps), ("samples_seen", self.samples_seen)):
            if isinstance(budget, list) and len(budget) != len(self.train_samples):
                raise ValueError(f"{key}: {len(budget)} numbers for {len(self.train_samples)} train_samples")
        return self

    @model_validator(mode="after")
    def _overrides_leave_the_axes_alone(self) -> Self:
        places: dict[str, Iterable[str]] = {"overrides": self.overrides, "tune": self.tune}
        places |= {f"arms.{name}.overrides": arm.overrides for name, arm in self.arms.items()}
        for place, keys in places.items():
            for key in keys:
                if any(key == each or key.startswith(f"{each}.") for each in DECIDED):
                    raise ValueError(f"{place}: {key} is decided by the comparison itself; leave it out")
        for name, arm in self.arms.items():
            tuned = next((key for key in arm.overrides if key in self.tune), None)
            if tuned is not None:
                raise ValueError(f"arms.{name}.overrides: {tuned} is tuned for every arm alike; leave it out")
        return self
