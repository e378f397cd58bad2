"""What is recorded of the course of the loss, and what is done against its spikes (docs/dynamics.md)."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from matsci_hpc.config.base import Section


class Dynamics(Section):
    """What the optimiser does to the model, in RUN_DIR/dynamics.jsonl."""

    record: bool = True
    every_steps: PositiveInt | None = None
    """Steps between lines; left out, those of `log_every`. A step with a spike always has one."""
    lags: int = Field(default=8, ge=2, le=64)
    """Most steps between two gradients whose likeness is recorded."""


class Rollback(Section):
    """How a run goes back to a checkpoint, for a spike or (`nonfinite.policy: rollback`) for what is not finite."""

    data: Literal["skip", "repeat"] = "skip"
    """`skip` goes on with the samples after that step; `repeat` trains on those since the checkpoint again, which needs
    a lower learning rate to end differently, and does not help against data that are no numbers."""
    back_steps: PositiveInt = 1
    """The checkpoint is at least so many steps older than that step."""
    lr_factor: float = Field(default=1.0, gt=0.0, le=1.0)
    """The learning rate is multiplied by this for `lr_steps` steps."""
    lr_steps: NonNegativeInt = 0
    limit: PositiveInt = 3
    """After so many rollbacks, spikes are only recorded, and what is not finite ends the run. Rollbacks for either
    count."""

    @model_validator(mode="after")
    def _ends_differently(self) -> Self:
        if self.data == "repeat" and (self.lr_factor == 1.0 or self.lr_steps == 0):
            raise ValueError("data: repeat would meet the same spike again; give lr_factor below 1 and lr_steps")
        return self


class Spikes(Section):
    """Steps whose loss lies far above those before."""

    window: int = Field(default=100, ge=10)
    """Losses that median and median absolute deviation are taken over."""
    threshold: PositiveFloat = 8.0
    """A spike is so many robust standard deviations above the median."""
    before: NonNegativeInt = 20
    """Steps before a spike that are written with it."""
    on_spike: Literal["record", "rollback"] = "record"
    """`rollback` goes back to a checkpoint before the spike."""
    rollback: Rollback = Rollback()


class Average(Section):
    """A running mean of the parameters, which is evaluated in their place and saved beside them."""

    decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Weight that the mean keeps at each step, 0.999 for instance; less in the first steps. Left out, there is none."""
