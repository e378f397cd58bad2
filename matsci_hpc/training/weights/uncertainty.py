"""Weights by homoscedastic uncertainty: Kendall, Gal, Cipolla (2018), arXiv:1705.07115, eqs. 7 and 10.

    minimise  sum_i w_i (c_i exp(-s_i) L_i + s_i / 2),    s_i = log sigma_i^2,  |s_i| <= log f

| symbol | here |
|---|---|
| L_i | loss of target i over the global batch |
| s_i | `log_variance` [targets], learned |
| c_i | 1/2 for numbers, 1 for classes and labels |
| w_i | `targets.NAME.weight` |
| f | `weighting.max_factor` |

The derivative by s_i is w_i (1/2 - c_i exp(-s_i) L_i): it needs the loss of the global batch and nothing else. So the
log-variances are no parameters of the model, and nothing more is sent. They follow Adam (Kingma and Ba 2015,
arXiv:1412.6980), each by the steps in which some sample carries its target. After each step they are put back into
their bounds: the best s_i is log(2 c_i L_i), which has no least value as L_i goes to 0. Learned log-variances are
usually bounded (as by Chua et al. 2018, arXiv:1805.12114).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matsci_hpc.config.weighting import MAX_FACTOR
from matsci_hpc.training.tasks import Task
from matsci_hpc.training.weights.base import Losses

RATE = 0.01
BETAS = (0.9, 0.999)
EPS = 1e-8


class UncertaintyWeights:
    """Weights w_i c_i exp(-s_i).

    Args:
        tasks: of the run.
        rate: learning rate of the log-variances.
        max_factor: bound of exp(-s_i), and of exp(s_i).
    """

    def __init__(self, tasks: Sequence[Task], rate: float = RATE, max_factor: float = MAX_FACTOR) -> None:
        self._names = [task.name for task in tasks]
        self._weight = [task.weight for task in tasks]
        self._factor = [0.5 if task.spec.kind == "regression" else 1.0 for task in tasks]
        self._rate = rate
        self._limit = math.log(max_factor)
        self._log_variance = [0.0] * len(tasks)
        self._mean = [0.0] * len(tasks)
        self._square = [0.0] * len(tasks)
        self._steps = [0.0] * len(tasks)
        self.current = self._weights()

    def measures(self, step: int) -> bool:
        """Never: losses are all it takes."""
        del step
        return False

    def objective(self, losses: Losses) -> float:
        """The sum above, over the targets of the step."""
        own = zip(self._names, self._weight, self._log_variance, strict=True)
        return sum(self.current[name] * losses[name] + weight * s / 2 for name, weight, s in own if name in losses)

    def learn(self, losses: Losses, norms: dict[str, float]) -> None:
        """A step of Adam on the log-variances of the targets that the step had."""
        del norms
        for i, name in enumerate(self._names):
            if name not in losses:
                continue
            gradient = self._weight[i] / 2 - self.current[name] * losses[name]
            self._steps[i] += 1
            self._mean[i] = BETAS[0] * self._mean[i] + (1 - BETAS[0]) * gradient
            self._square[i] = BETAS[1] * self._square[i] + (1 - BETAS[1]) * gradient * gradient
            mean = self._mean[i] / (1 - BETAS[0] ** self._steps[i])
            square = self._square[i] / (1 - BETAS[1] ** self._steps[i])
            self._log_variance[i] = self._bounded(self._log_variance[i] - self._rate * mean / (math.sqrt(square) + EPS))
        self.current = self._weights()

    def state(self) -> dict[str, Tensor]:
        """Log-variances, Adam's moments and steps: float64 [4, targets]."""
        rows = [self._log_variance, self._mean, self._square, self._steps]
        return {"uncertainty": torch.tensor(rows, dtype=torch.float64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, which an earlier release may have written without bounds."""
        found, self._mean, self._square, self._steps = state["uncertainty"].tolist()
        self._log_variance = [self._bounded(each) for each in found]
        self.current = self._weights()

    def _bounded(self, log_variance: float) -> float:
        return min(max(log_variance, -self._limit), self._limit)

    def _weights(self) -> dict[str, float]:
        own = zip(self._names, self._weight, self._factor, self._log_variance, strict=True)
        return {name: weight * factor * math.exp(-s) for name, weight, factor, s in own}
