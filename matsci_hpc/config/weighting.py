"""The config section `weighting`: how the losses of several targets become one."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from matsci_hpc.config.base import Section

MAX_FACTOR = 1e4
"""Bound of learned weights, if the config gives none."""


class Weighting(Section):
    """Weights of the targets, which multiply those of `targets.NAME.weight`."""

    rule: Literal["fixed", "uncertainty", "gradnorm"] = "fixed"
    """`fixed` takes the weights of the targets as they are; `uncertainty` learns the variance of each target's error
    and divides its loss by it; `gradnorm` lets all targets pull at the last shared layer with gradients of like size,
    those that lag behind more. What the learned weights were stands in metrics.jsonl (docs/targets.md)."""
    rate: PositiveFloat | None = None
    """How fast weights are learned. `uncertainty`: learning rate of Adam on the log-variances, 0.01 if left out.
    `gradnorm`: part of the way that a weight goes at each update, on a log scale, 0.1 if left out."""
    max_factor: float = Field(default=MAX_FACTOR, gt=1.0)
    """With `uncertainty`: by so much a learned variance raises or lowers a weight at most. Without a bound that of a
    target which is learned to almost no loss would grow for as long as the run goes on."""
    alpha: NonNegativeFloat = 1.5
    """With `gradnorm`: how much more a target pulls that lags behind the others; 0 gives all the same gradient norm."""
    every_steps: PositiveInt = 10
    """With `gradnorm`: steps between updates. A step with an update goes back to the last shared layer once more for
    each target."""

    @model_validator(mode="after")
    def _settings_are_of_the_rule(self) -> Self:
        if self.rule == "fixed" and self.rate is not None:
            raise ValueError(
                "rate is for weights that are learned: set rule to uncertainty or gradnorm, or leave it out"
            )
        for name, rule in (("max_factor", "uncertainty"), ("alpha", "gradnorm"), ("every_steps", "gradnorm")):
            # The default may stand there, for every run writes it into its config.
            if self.rule != rule and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for weights that {rule} learns: set rule to {rule}, or leave it out")
        if self.rule == "gradnorm" and self.rate is not None and self.rate > 1:
            raise ValueError(f"rate is a part of the way with gradnorm, 1 at most, not {self.rate:g}")
        return self
