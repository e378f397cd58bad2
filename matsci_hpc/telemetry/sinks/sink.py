"""What a sink is, and the numbers that go into one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Numbers = dict[str, float]


TRAINING = "train"
"""Prefix of what stands in metrics.jsonl; evaluations have the name of their split."""


class Sink(Protocol):
    """A log of another program."""

    def write(self, step: int, numbers: Numbers, *, repeated: bool = False) -> None:
        """Add the numbers of a step, by name.

        Args:
            step: of the run.
            numbers: the newest of a step count.
            repeated: whether a life before wrote the same results of this step.
        """
        ...

    def go_back(self, step: int) -> None:
        """The run has gone back to an earlier step: what was written beyond it is of a course that was given up."""
        ...

    def close(self) -> None:
        """See to it that everything is on disk."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """What a sink is told of the run.

    Attributes:
        folder: of the run.
        step: that this life goes on from; what a life before wrote beyond it is taken back.
        lines: of metrics and evaluations that all lives before wrote.
        config: resolved, as YAML.
    """

    folder: Path
    step: int
    lines: int
    config: str


def numbers_of(record: Mapping[str, Any], prefix: str) -> Numbers:
    """The finite numbers of a line of records, those of mappings in it by path: `train/losses/gap`.

    Args:
        record: the line; lists and words in it are left out.
        prefix: of every name.
    """
    return dict(_flat(record, prefix))


def _flat(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)
