"""What a run writes down of itself besides metrics.jsonl (docs/records.md)."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from matsci_hpc.config.base import Section

SinkName = Literal["tensorboard", "wandb", "mlflow"]


class Records(Section):
    """Logs beside metrics.jsonl."""

    sinks: list[SinkName] = Field(default_factory=list)
    """Further logs with the numbers of metrics.jsonl and evaluations.jsonl, in the run directory: `tensorboard`,
    `wandb` (offline, nothing is sent) and `mlflow` (a store of files). Each needs the extra of its name."""
    ranks_mb: NonNegativeFloat = 64.0
    """Megabytes that ranks.jsonl, the record of every rank, may take by the end of the run. A line stands for as many
    steps as that needs. 0 writes none."""
    straggler_ratio: Annotated[float, Field(gt=1.0)] = 1.2
    """A rank that works so many times as long as the median rank is a straggler."""
