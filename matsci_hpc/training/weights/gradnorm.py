"""Weights by gradient norm: GradNorm of Chen, Badrinarayanan, Lee, Rabinovich (2018), arXiv:1711.02257.

    G_i = v_i |grad_W L_i|,    goal_i = mean_j(G_j) r_i^alpha,    r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))

| symbol | here |
|---|---|
| W | matrix of the last layer that all targets share (`shared_layer.py`) |
| L_i, L_i(0) | loss of target i, a running mean over steps; and the mean over its first `FIRST` steps |
| grad_W L_i | gradient over the global batch; its squared norm is a running mean over updates |
| v_i | learned weight, of mean 1 over the targets; the loss is weighted by `targets.NAME.weight` times v_i |
| r_i | relative inverse training rate: above 1 for targets that lag behind |

Two things differ from the paper. It lowers sum_i |G_i - goal_i| with the goals held fixed; here it is
sum_i (log G_i - log goal_i)^2 / 2, by a step of size `rate` in log v_i. Both have the same minimum, G_i = goal_i. The
step is

    v_i <- v_i (goal_i / G_i)^rate,

which needs no learning rate that fits the size of the losses, keeps weights positive, and is smooth: the derivative of
|x| jumps from -1 to 1, by which rounding could set the weights of one rank and of many apart. And it takes losses and
norms of single batches; here they are means. A target of which most batches hold nothing new and few hold much, such as
the band gap of metals with an insulator now and then, would otherwise be judged by the many: its weight would grow
until nothing else is learned.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matsci_hpc.training.tasks import Task
from matsci_hpc.training.weights.base import Losses

RATE = 0.1
FIRST = 20
"""Steps, of those that have the target, whose mean loss counts as that of the beginning."""
KEEP_LOSS = 0.98
"""Weight that the running mean of a loss keeps at each step."""
KEEP_NORM = 0.9
"""Weight that the running mean of a squared norm keeps at each update."""


class RunningMean:
    """An exponential mean that is the plain mean at first: values divided by the weights that they have so far.

    Args:
        keep: weight that what was seen before keeps.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self.total = self.weight = 0.0

    def add(self, value: float) -> None:
        """Take in a value."""
        self.total = self._keep * self.total + (1 - self._keep) * value
        self.weight = self._keep * self.weight + (1 - self._keep)

    @property
    def value(self) -> float:
        """The mean, 0 before there is any value."""
        return self.total / self.weight if self.weight else 0.0


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
        self._first_sum = dict.fromkeys(self._weight, 0.0)
        self._first_steps = dict.fromkeys(self._weight, 0.0)
        self._loss = {name: RunningMean(KEEP_LOSS) for name in self._weight}
        self._square = {name: RunningMean(KEEP_NORM) for name in self._weight}
        self.current = self._weights()

    def measures(self, step: int) -> bool:
        """The first step and every so many of them: what a step finds holds from the next one on."""
        return (step - 1) % self._every == 0

    def objective(self, losses: Losses) -> float:
        """Sum of weights times losses."""
        return sum(self.current[name] * loss for name, loss in losses.items())

    def learn(self, losses: Losses, norms: dict[str, float]) -> None:
        """Take note of a step, and update the weights if it measured norms."""
        for name, loss in losses.items():
            self._loss[name].add(loss)
            if self._first_steps[name] < FIRST:
                self._first_sum[name] += loss
                self._first_steps[name] += 1
        for name in losses:
            if math.isfinite(norms.get(name, math.nan)):
                self._square[name].add(norms[name] ** 2)
        if norms:
            self._update([name for name in self._log if self._square[name].value > 0 and self._loss[name].value > 0])

    def _update(self, known: list[str]) -> None:
        if len(known) < 2:
            return
        pull = {name: math.exp(self._log[name]) * math.sqrt(self._square[name].value) for name in known}
        rest = {name: self._loss[name].value * self._first_steps[name] / self._first_sum[name] for name in known}
        mean_pull, mean_rest = (sum(each.values()) / len(known) for each in (pull, rest))
        for name in known:
            goal = mean_pull * (rest[name] / mean_rest) ** self._alpha
            self._log[name] += self._rate * math.log(goal / pull[name])
        mean = sum(map(math.exp, self._log.values())) / len(self._log)
        self._log = {name: each - math.log(mean) for name, each in self._log.items()}
        self.current = self._weights()

    def state(self) -> dict[str, Tensor]:
        """Logarithms of v_i, and what means are made of: float64 [7, targets]."""
        rows = [
            [
                self._log[name],
                self._first_sum[name],
                self._first_steps[name],
                self._loss[name].total,
                self._loss[name].weight,
                self._square[name].total,
                self._square[name].weight,
            ]
            for name in self._weight
        ]
        return {"gradnorm": torch.tensor(rows, dtype=torch.float64).t().contiguous()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        for name, row in zip(self._weight, state["gradnorm"].t().tolist(), strict=True):
            self._log[name], self._first_sum[name], self._first_steps[name] = row[:3]
            self._loss[name].total, self._loss[name].weight = row[3:5]
            self._square[name].total, self._square[name].weight = row[5:]
        self.current = self._weights()

    def _weights(self) -> dict[str, float]:
        return {name: weight * math.exp(self._log[name]) for name, weight in self._weight.items()}
