"""A running mean of the parameters, evaluated in their place.

    mean_t = d mean_(t-1) + (1 - d) theta_t,    d = min(decay, (1 + t) / (10 + t))

(Polyak and Juditsky 1992, doi:10.1137/0330046, with exponential weights; the shorter memory of the first steps is that
of TensorFlow's ExponentialMovingAverage.)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of the trained parameters of a model.

    Args:
        model: whose parameters, at first, are the mean.
        decay: weight that the mean keeps at each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.means = {name: each.detach().clone() for name, each in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step, which are counted from 1."""
        keep = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.means.values()), list(self._parameters.values()), 1 - keep)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from saved means; from the parameters as they are where there are none."""
        for name, mean in self.means.items():
            mean.copy_(tensors.get(name, self._parameters[name]))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the means for its parameters."""
        own = {name: each.detach().clone() for name, each in self._parameters.items()}
        try:
            self._put(self.means)
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, each in self._parameters.items():
            each.copy_(values[name])
