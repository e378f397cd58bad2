"""Where a run stands: what a checkpoint holds besides the parameters."""

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from matsci_hpc.loading.cost import CostModel

LATER = {"kernel", "rollbacks", "slow_until", "plateaus", "evaluations_since_best"}
"""What checkpoints of earlier releases lack."""


@dataclass(slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: optimiser steps taken.
        epoch, step_in_epoch: place of the next step, from 0.
        samples_seen: samples trained on, the same sample in another epoch counted again.
        group_above: predicted cost above which samples are trained with their like, decided when the run began.
        atom_cost: of an atom against an edge, by which a run that fits it divides its steps in the present epoch.
        time_s: seconds of training over all lives.
        best_loss, best_step: of the best evaluation so far.
        evaluated_step: of the last evaluation; one that was due at a stop is made up for by the next life.
        skipped_steps: steps left out because their loss or gradient was not finite, or for a spike without checkpoint.
        skipped_in_row: how many of these were the last ones.
        data: fingerprint of each data set.
        kernel: who adds up over edges on a GPU, decided when the run began.
        rollbacks: how often the run went back to a checkpoint because of a spike or what was not finite.
        slow_until: step up to which the learning rate is lowered after the last of them.
        plateaus: how often the learning rate was lowered because held-out losses did not fall.
        evaluations_since_best: evaluations since the best one, or since it was lowered.
    """

    step: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    step_in_epoch: NonNegativeInt = 0
    samples_seen: NonNegativeInt = 0
    group_above: float | None = None
    atom_cost: NonNegativeFloat = CostModel().atom
    time_s: NonNegativeFloat = 0.0
    best_loss: float | None = None
    best_step: PositiveInt | None = None
    evaluated_step: NonNegativeInt = 0
    skipped_steps: NonNegativeInt = 0
    skipped_in_row: NonNegativeInt = 0
    data: list[str] = field(default_factory=list)
    kernel: str | None = None
    rollbacks: NonNegativeInt = 0
    slow_until: NonNegativeInt = 0
    plateaus: NonNegativeInt = 0
    evaluations_since_best: NonNegativeInt = 0

    @property
    def epoch_of_last_step(self) -> int:
        """The epoch that the step taken last belongs to, from 0."""
        return max(self.epoch - (self.step_in_epoch == 0), 0)


def read_state(record: Any) -> RunState:
    """The state that a checkpoint's record holds, every value checked.

    Raises:
        ValueError: a value is missing or cannot be one.
    """
    if not isinstance(record, dict) or (missing := RunState.__dataclass_fields__.keys() - record.keys() - LATER):
        raise ValueError(f"lacks {', '.join(sorted(missing))}" if isinstance(record, dict) else "holds no state")
    try:
        return TypeAdapter(RunState).validate_json(json.dumps(record), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
