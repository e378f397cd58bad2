"""The distribution of Adam's ratio.

Adam moves a parameter by the learning rate times

    r = m / (sqrt(v) + eps)

with m and v the running means of the gradient and of its square, both divided by what their zero start leaves out
(Kingma and Ba 2015, arXiv:1412.6980). Where the gradients of successive steps are independent, r has a bell shape
around 0. Where they agree, m approaches sqrt(v) and r gathers at -1 and +1: whole layers move together, and the loss
jumps (Molybog et al. 2023, arXiv:2304.09871). In the first 1 / (1 - beta1) steps r is near -1 and +1 in any run.

    symbol          here
    m, v            exp_avg, exp_avg_sq, each over 1 - beta^step
    share beyond    part of the parameters with |r| > 0.9
    bimodality      (skewness^2 + 1) / kurtosis: 1/3 for a normal distribution, 5/9 for a uniform one, 1 for two points
                    (Sarle's coefficient; Pfister et al. 2013, doi:10.3389/fpsyg.2013.00700)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

EDGE = 1.25
"""The histogram goes from -EDGE to EDGE; what lies beyond counts in its outermost bins."""
BINS = 50
"""Bins of equal width, 0.05, so that 0.9 and 1 are borders."""
BEYOND = 0.9
MOST_VALUES = 1 << 16
"""Of a larger group only about so many values, evenly spaced, are looked at: enough for shares to 0.2 %."""


@dataclass(frozen=True, slots=True)
class RatioShape:
    """What the values of r look like.

    Attributes:
        values: how many were looked at.
        share_beyond: part of them with |r| > 0.9.
        bimodality: Sarle's coefficient, None where all values are equal.
        mean, std: of r.
        histogram: counts in `BINS` bins from -`EDGE` to `EDGE`.
    """

    values: int
    share_beyond: float
    bimodality: float | None
    mean: float
    std: float
    histogram: list[int]


def adam_ratios(
    parameters: list[Parameter], optimizer: torch.optim.Optimizer, most_values: int = MOST_VALUES
) -> Tensor:
    """Values of r of a group of parameters: float [values]; none before the first step.

    Args:
        parameters: of one group.
        optimizer: Adam or AdamW of torch, with the moments of the parameters.
        most_values: of a larger group about so many are given, evenly spaced.
    """
    settings = _settings(optimizer)
    stride = -(-sum(each.numel() for each in parameters) // most_values)
    stride += stride % 2 == 0 and stride > 1  # an even one would meet the same columns of every matrix
    rows = [(each, optimizer.state[each]) for each in parameters if optimizer.state.get(each)]
    if not rows:
        return torch.empty(0)
    parts = []
    for parameter, state in rows:
        group = settings[parameter]
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        m = state["exp_avg"].detach().reshape(-1)[::stride] / (1 - beta1**step)
        v = state["exp_avg_sq"].detach().reshape(-1)[::stride] / (1 - beta2**step)
        parts.append(m / (v.sqrt_() + group["eps"]))
    return torch.cat(parts)


def ratio_shape(ratios: Tensor) -> RatioShape | None:
    """Describe values of r, float [values]; None if there are none or some are not finite."""
    if not ratios.numel():
        return None
    r = ratios.float()
    mean = r.mean()
    centred = r - mean
    squares = centred.square()
    moments = torch.stack(
        [
            mean,
            squares.mean(),
            (squares * centred).mean(),
            squares.square().mean(),
            (r.abs() > BEYOND).float().mean(),
        ]
    ).double()
    counts = torch.histc(r.clamp(-EDGE, EDGE), BINS, -EDGE, EDGE)
    if not bool(moments.isfinite().all()):
        return None
    average, variance, third, fourth, beyond = moments.tolist()
    # (skewness^2 + 1) / kurtosis with the moments of the values themselves
    bimodality = (third**2 / variance + variance**2) / fourth if variance > 0 and fourth > 0 else None
    return RatioShape(r.numel(), beyond, bimodality, average, variance**0.5, [int(each) for each in counts.tolist()])


def together(shapes: Mapping[str, RatioShape], sizes: Mapping[str, int]) -> float | None:
    """Share beyond 0.9 over all groups, each counted by its parameters; None if there are no groups."""
    total = sum(sizes[name] for name in shapes)
    return sum(sizes[name] * shape.share_beyond for name, shape in shapes.items()) / total if total else None


def _settings(optimizer: torch.optim.Optimizer) -> dict[Parameter, dict[str, Any]]:
    return {each: group for group in optimizer.param_groups for each in group["params"]}
