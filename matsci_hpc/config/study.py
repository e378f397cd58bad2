"""The config of `matsci-hpc study`: one run, varied along a few axes and repeated."""

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from matsci_hpc.config.run_set import RunSetConfig

SHORT_NAMES = {
    "backend": "parallel.backend",
    "lr_rule": "schedule.scaling",
    "virtual_ranks": "parallel.virtual_ranks",
    "data": "data.train",
    "graphs": "batch.graphs",
    "cost": "batch.cost",
}
"""Axes with a name of their own, and the key of a training config that each stands for."""
SIZES = ("ranks", "nodes", "threads")
"""Axes that are a size of the job."""
PER_RANK = {"graphs_per_rank": "batch.graphs", "cost_per_rank": "batch.cost"}
"""Axes of weak scaling, and the key that grows with the ranks."""
Difference = Literal["code", "data", "hardware"]


class StudyConfig(RunSetConfig):
    """A scaling study."""

    kind: ClassVar[str] = "study"
    verb: ClassVar[str] = "study"
    by_time: ClassVar[bool] = True

    base: Path
    """Config of the training run, or of the data preparation, that is varied."""
    scaling: Literal["weak", "strong"]
    """`strong` keeps the global batch, so that more ranks share the same work. `weak` lets it grow with the ranks: give
    the axis `graphs_per_rank` or `cost_per_rank`. Of a preparation, the clouds of its source grow."""
    axes: dict[str, Annotated[list[JsonValue], Field(min_length=1)]]
    """What differs between runs, each with its values; every combination is run. `ranks`, `nodes`, `threads` (cores of
    a rank; left out, those of the site, on this machine as many as the largest run leaves for each rank), `backend`,
    `graphs` or `cost` (global batch, strong scaling), `graphs_per_rank` or `cost_per_rank` (weak; of virtual ranks,
    too), `virtual_ranks`, `lr_rule`, `data`, or any key of the base, such as `data.block`."""
    repeats: PositiveInt = 3
    """Runs of each combination. One repeat of all of them comes before the next begins."""
    seed: NonNegativeInt = 0
    """Of the order within a repeat, which is shuffled: what changes on the machine in the meantime must not fall
    together with an axis."""
    warmup_steps: NonNegativeInt = 10
    """Steps that are not measured, at the beginning of each life of a run."""
    steps: PositiveInt = 50
    """Steps that are measured."""
    log_every: PositiveInt = 1
    """Steps of a line in metrics.jsonl. Divides `warmup_steps` and `steps`."""
    target_loss: PositiveFloat | None = None
    """Training loss, for the node-hours until it is reached."""
    allow: list[Difference] = Field(default_factory=list)
    """What runs of one series may differ in beside their ranks: `code` (version, commit, torch), `data` (fingerprints
    of the data sets), `hardware` (models of processor and GPUs, threads of a rank)."""

    @property
    def sets_threads(self) -> bool:
        """Whether threads are an axis."""
        return "threads" in self.axes

    @property
    def planned_steps(self) -> int:
        """Optimiser steps of each run."""
        return self.warmup_steps + self.steps

    @field_validator("axes")
    @classmethod
    def _values(cls, axes: dict[str, list[JsonValue]]) -> dict[str, list[JsonValue]]:
        for name, values in axes.items():
            if any(value in values[:place] for place, value in enumerate(values)):
                raise ValueError(f"{name}: a value stands twice; `repeats` says how often each combination is run")
            if name in SIZES or name in PER_RANK:
                kinds = (int, float) if name == "cost_per_rank" else (int,)
                for value in values:
                    if isinstance(value, bool) or not isinstance(value, kinds) or value <= 0:
                        raise ValueError(
                            f"{name}: {value!r} is not a positive {'' if float in kinds else 'whole '}number"
                        )
        both = [(name, key) for name, key in SHORT_NAMES.items() if name in axes and key in axes]
        if both:
            raise ValueError(f"{both[0][0]} and {both[0][1]} are the same axis; leave one of them out")
        for key in ("run_dir", "out", "steps", "log_every", "job"):
            if key in axes or any(name.startswith(f"{key}.") for name in axes):
                raise ValueError(f"{key}: the study decides this; it is no axis")
        return axes

    @model_validator(mode="after")
    def _batch_by_scaling(self) -> Self:
        per_rank: list[str] = [name for name in PER_RANK if name in self.axes]
        whole: list[str] = [name for name in ("graphs", "cost", "batch.graphs", "batch.cost") if name in self.axes]
        if self.scaling == "strong" and per_rank:
            raise ValueError(
                f"axes: {per_rank[0]} lets the global batch grow with the ranks, and strong scaling keeps it; give "
                f"{per_rank[0].removesuffix('_per_rank')}, or scaling: weak"
            )
        if self.scaling == "weak" and whole:
            raise ValueError(
                f"axes: {whole[0]} is the global batch, and in weak scaling it grows with the ranks; give "
                f"{whole[0].removeprefix('batch.')}_per_rank, or scaling: strong"
            )
        if len(per_rank) + len(whole) > 1:
            raise ValueError(f"axes: give one of {' and '.join(per_rank + whole)}, not both")
        if "ranks" not in self.axes and "nodes" not in self.axes:
            raise ValueError("axes: give ranks or nodes, such as ranks: [1, 2, 4]")
        return self

    @model_validator(mode="after")
    def _lines_end_with_the_warmup(self) -> Self:
        if self.warmup_steps % self.log_every or self.steps % self.log_every:
            raise ValueError(
                f"log_every: {self.log_every} does not divide warmup_steps {self.warmup_steps} and steps {self.steps}; "
                f"{math.gcd(self.warmup_steps, self.steps)} does"
            )
        return self

    @model_validator(mode="after")
    def _overrides_leave_the_axes_alone(self) -> Self:
        varied = {SHORT_NAMES.get(name, PER_RANK.get(name, name)) for name in self.axes}
        for key in self.overrides:
            if key in varied or key in {"run_dir", "out", "steps", "log_every"}:
                raise ValueError(f"overrides: {key} is decided by the study itself; leave it out")
        return self
