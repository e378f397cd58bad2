"""The weights of targets in the loss of a step.

Whatever is learned is learned from losses and gradient norms of the global batch, which all ranks know, so that all
ranks have the same weights without asking each other.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from matsci_hpc.training.tasks import Task

Losses = dict[str, float]
"""Of the global batch by target; of those alone that some sample of it carries."""


class Weights(Protocol):
    """Weights by target.

    Attributes:
        current: of the present step.
    """

    current: dict[str, float]

    def measures(self, step: int) -> bool:
        """Whether a step, from 1, needs the gradient norms of the targets."""
        ...

    def objective(self, losses: Losses) -> float:
        """What training lowers, from the losses of a step."""
        ...

    def learn(self, losses: Losses, norms: dict[str, float]) -> None:
        """Change the weights after a step.

        Args:
            losses: of the step.
            norms: of the gradients of the unweighted losses at the last shared layer, where they were measured.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """What the next life of a run goes on from."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        ...


class FixedWeights:
    """Those of the config.

    Args:
        tasks: of the run.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.current = {task.name: task.weight for task in tasks}

    def measures(self, step: int) -> bool:
        """Never."""
        del step
        return False

    def objective(self, losses: Losses) -> float:
        """Sum of weights times losses."""
        return sum(self.current[name] * loss for name, loss in losses.items())

    def learn(self, losses: Losses, norms: dict[str, float]) -> None:
        """Nothing to learn."""

    def state(self) -> dict[str, Tensor]:
        """Nothing but the config."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing to go on from."""


def weighted(current: dict[str, float], losses: dict[str, Tensor]) -> Tensor:
    """The losses of a part of a batch, added up by their weights."""
    return sum((current[name] * loss for name, loss in losses.items()), torch.zeros(()))
