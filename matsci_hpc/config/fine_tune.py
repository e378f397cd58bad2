"""The config section `fine_tune`: what a run does with an encoder that another run has trained."""

import math
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from matsci_hpc.config.base import Section


class FineTune(Section):
    """How the encoder is trained, and what is taken from the run that `init_from` names (docs/finetuning.md).

    Frozen parts and learning rates hold for an encoder of this run's seed, too, so that a run without `init_from` can
    be compared with one that has it.
    """

    freeze: Literal["none", "encoder"] | list[str] | dict[str, PositiveInt | Literal["all"]] = "none"
    """What stays as it is: `encoder`, or parts of it by their names, such as [elements, layers.0]. Or each part with
    its number of steps, or `all`: {encoder: 1000, layers.4: 500}; of several names the longest counts."""
    freeze_steps: PositiveInt | None = None
    """For so many steps, from the first one on; left out, for the whole run."""
    encoder_lr: PositiveFloat = 1.0
    """Learning rate of the encoder as a multiple of that of the heads."""
    layer_decay: float = Field(gt=0.0, le=1.0, default=1.0)
    """Each layer of the encoder learns at this multiple of the rate of the layer above it. What comes after the last
    layer learns at `encoder_lr`; what comes before the first, such as the table of elements, counts as a layer."""
    optimizer: Literal["reset", "kept"] = "reset"
    """`kept`: Adam goes on with the moments that it had of the encoder's parameters; of all others it begins anew."""
    heads: Literal["new", "matching"] = "new"
    """`matching`: heads, with their scaling, are taken over for targets of the same name, kind, unit, classes and
    sizes."""
    reinitialize: list[str] = Field(default_factory=list)
    """Parts of the encoder, by their names, that are not taken over but begin with random parameters, such as
    [elements]."""
    elements: Literal["warn", "refuse"] = "warn"
    """What happens if the data hold elements that the encoder was never trained on."""
    neighbors: Literal["refuse", "accept"] = "refuse"
    """What happens if it learned from edges or lengths of another kind: another cutoff, another rule, or lengths in
    radii of a symmetry cloud instead of angstrom. `accept` fine-tunes across the difference and says it."""

    @property
    def frozen_for(self) -> dict[str, float]:
        """Steps for which each named part stays as it is; infinity for the whole run."""
        if isinstance(self.freeze, dict):
            return {name: math.inf if steps == "all" else steps for name, steps in self.freeze.items()}
        steps = math.inf if self.freeze_steps is None else self.freeze_steps
        named = [self.freeze] if isinstance(self.freeze, str) else self.freeze
        return {name: steps for name in named if name != "none"}

    @field_validator("reinitialize")
    @classmethod
    def _something_is_taken(cls, parts: list[str]) -> list[str]:
        if "encoder" in parts:
            raise ValueError("nothing of the encoder would be taken over; leave out init_from instead")
        return parts

    @model_validator(mode="after")
    def _steps_are_given_once(self) -> Self:
        if self.freeze_steps is not None and isinstance(self.freeze, dict):
            raise ValueError("freeze names the steps of each part, so leave out freeze_steps")
        if self.freeze_steps is not None and not self.frozen_for:
            raise ValueError("freeze_steps: nothing is frozen; give freeze: encoder, or leave it out")
        return self
