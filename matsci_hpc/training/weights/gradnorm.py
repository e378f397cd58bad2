"""Weights by gradient norm: GradNorm of Chen, Badrinarayanan, Lee, Rabinovich (2018), arXiv:1711.02257.

    G_i = v_i |grad_W L_i|,    goal_i = mean_j(G_j) r_i^alpha,    r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))

| symbol | here |
|---|---|
| W | matrix of the last layer that all targets share (`shared_layer.py`) |
| L_i, L_i(0) | loss of target i over the global batch, and at the first update that had it |
| v_i | learned weight, of mean 1 over the targets; the loss is weighted by `targets.NAME.weight` times v_i |
| r_i | relative inverse training rate: above 1 for targets that lag behind |

The paper lowers sum_i |G_i - goal_i| with the goals held fixed; here it is sum_i (log G_i - log goal_i)^2 / 2, by a
step of size `rate` in log v_i. Both have the same minimum, G_i = goal_i. The step is

    v_i <- v_i (goal_i / G_i)^rate,

which needs no learning rate that fits the size of the losses, keeps weights positive, and is smooth: the derivative of
|x| jumps from -1 to 1, by which rounding could set the weights of one rank and of many apart.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matsci_hpc.training.tasks import Task
from matsci_hpc.training.weights.base import Losses

RATE = 0.1


class GradNormWeights:
    """Weights that even out gradient norms.

    Args:
        tasks: of the run.
        every_steps: between updates.
        alpha: how much more targets pull that lag behind.
        rate: of an update.
    """

    def __init__(self, tasks: Sequence[Task], every_steps: int, alpha: float, rate: float = RATE) -> None:
        self._weight = {task.name: task.weight for task in tasks}
        self._every, self._alpha, self._rate = every_steps, alpha, rate
        self._log = dict.fromkeys(self._weight, 0.0)
        self._first = dict.fromkeys(self._weight, math.nan)
        self.current = self._weights()

    def measures(self, step: int) -> bool:
        """The first step and every so many of them: what a step finds holds from the next one on."""
        return (step - 1) % self._every == 0

    def objective(self, losses: Losses) -> float:
        """Sum of weights times losses."""
        return sum(self.current[name] * loss for name, loss in losses.items())

    def learn(self, losses: Losses, norms: dict[str, float]) -> None:
        """An update, if norms were measured; of the targets alone that pulled in this step."""
        usable = [name for name in losses if losses[name] > 0 and 0 < norms.get(name, 0.0) < math.inf]
        for name in usable:
            if math.isnan(self._first[name]):
                self._first[name] = losses[name]
        if len(usable) < 2:
            return
        pull = {name: math.exp(self._log[name]) * norms[name] for name in usable}
        rest = {name: losses[name] / self._first[name] for name in usable}
        mean_pull, mean_rest = (sum(each.values()) / len(usable) for each in (pull, rest))
        for name in usable:
            goal = mean_pull * (rest[name] / mean_rest) ** self._alpha
            self._log[name] += self._rate * math.log(goal / pull[name])
        mean = sum(map(math.exp, self._log.values())) / len(self._log)
        self._log = {name: each - math.log(mean) for name, each in self._log.items()}
        self.current = self._weights()

    def state(self) -> dict[str, Tensor]:
        """Logarithms of v_i, and first losses: float64 [2, targets]."""
        rows = [list(self._log.values()), list(self._first.values())]
        return {"gradnorm": torch.tensor(rows, dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        log, first = state["gradnorm"].tolist()
        self._log, self._first = (dict(zip(self._weight, row, strict=True)) for row in (log, first))
        self.current = self._weights()

    def _weights(self) -> dict[str, float]:
        return {name: weight * math.exp(self._log[name]) for name, weight in self._weight.items()}
