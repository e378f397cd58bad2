"""RUN_DIR/targets.json: what a run learns, so that its model can be used where its data sets are not."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from matsci_hpc.errors import UserInputError
from matsci_hpc.neighbors import RULE
from matsci_hpc.training.atom_tasks import AtomTask
from matsci_hpc.training.tasks import Task
from matsci_hpc.whole_files import write_atomic


class Learned(BaseModel):
    """What a run learns, and by which rule its edges are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: dict[str, Task]
    cutoff_angstrom: PositiveFloat
    neighbor_rule: str
    gradients: dict[str, str] = Field(default_factory=dict)
    """Of targets that are the negative gradient of an energy, the name of that one."""

    @property
    def tasks(self) -> list[Task]:
        """The tasks of the run, in the order of their names."""
        return [_as_atom_task(each) if each.spec.per_atom else each for each in self.targets.values()]


def learned_by(tasks: Iterable[Task], cutoff: float, gradients: dict[str, str]) -> Learned:
    """What a run learns.

    Args:
        tasks: of the run.
        cutoff: radius of its neighbour lists, angstrom.
        gradients: of targets that are the negative gradient of an energy, the name of that one.
    """
    targets = {task.name: task for task in tasks}
    return Learned(targets=targets, cutoff_angstrom=cutoff, neighbor_rule=RULE, gradients=gradients)


def _as_atom_task(task: Task) -> AtomTask:
    return AtomTask(**{each.name: getattr(task, each.name) for each in fields(task)})


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
