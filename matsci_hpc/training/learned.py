"""RUN_DIR/targets.json: what a run learns, so that its model can be used where its data sets are not."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from matsci_hpc.errors import UserInputError
from matsci_hpc.neighbors import RULE
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.tasks import Task
from matsci_hpc.whole_files import write_atomic


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LearnedTarget(_Strict):
    """A target as a run learned it."""

    spec: TargetSpec
    weight: float = 1.0
    """Factor of its loss in the total."""
    loss: str = "huber"
    """Of a regression target."""
    statistics: TargetStatistics = TargetStatistics()
    """Of the training split, exact."""


class Learned(_Strict):
    """What a run learns, and by which rule its edges are made."""

    targets: dict[str, LearnedTarget]
    cutoff_angstrom: PositiveFloat
    neighbor_rule: str


def learned_by(tasks: Iterable[Task], cutoff: float) -> Learned:
    """What a run learns, from its tasks and the radius of its neighbour lists (angstrom)."""
    targets = {
        task.name: LearnedTarget(spec=task.spec, weight=task.weight, loss=task.loss, statistics=task.statistics)
        for task in tasks
    }
    return Learned(targets=targets, cutoff_angstrom=cutoff, neighbor_rule=RULE)


def write_learned(path: Path, learned: Learned) -> None:
    """Write it down; on one rank.

    Raises:
        UserInputError, MachineError: it cannot be written.
    """
    write_atomic(path, f"{learned.model_dump_json(indent=1, exclude_none=True)}\n".encode())


def read_learned(path: Path) -> Learned:
    """Read it.

    Raises:
        UserInputError: it is damaged.
    """
    try:
        return Learned.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise UserInputError(
            f"{path}: damaged: {first}; remove it if the data sets of the run are still in their place"
        ) from None
