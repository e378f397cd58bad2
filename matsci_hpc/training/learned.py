"""RUN_DIR/targets.json: what a run learns, so that its model can be used where its data sets are not."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from matsci_hpc.errors import UserInputError
from matsci_hpc.neighbors import RULE
from matsci_hpc.training.tasks import Task
from matsci_hpc.whole_files import write_atomic


class Learned(BaseModel):
    """What a run learns, and by which rule its edges are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: dict[str, Task]
    cutoff_angstrom: PositiveFloat
    neighbor_rule: str

    @property
    def tasks(self) -> list[Task]:
        """The tasks of the run, in the order of their names."""
        return list(self.targets.values())


def learned_by(tasks: Iterable[Task], cutoff: float) -> Learned:
    """What a run learns, from its tasks and the radius of its neighbour lists (angstrom)."""
    return Learned(targets={task.name: task for task in tasks}, cutoff_angstrom=cutoff, neighbor_rule=RULE)


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
