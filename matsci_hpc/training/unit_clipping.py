"""Adaptive gradient clipping: what a step may change in a unit is bounded by the unit's own parameters.

    G_i <- ratio max(|W_i|, eps) / |G_i| G_i    where |G_i| > ratio max(|W_i|, eps)

| symbol | variable | |
|---|---|---|
| W_i, G_i | parameters of unit i and their gradient, summed over the ranks | Euclidean norms |
| ratio | `optimizer.clip_ratio` | 0.01 is the usual choice |
| eps | `LEAST_NORM` | lets units grow that begin at zero |

A unit is a row of a matrix: the weights into one output of a linear layer, or the embedding of one element. A bias or
another vector is one unit, as in the authors' code. The last linear layer of every head is left alone, as the paper
does with the layer that gives the classes.

Source: A. Brock, S. De, S. L. Smith, K. Simonyan, High-Performance Large-Scale Image Recognition Without Normalization,
ICML 2021, arXiv:2102.06171, section 4.1.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from matsci_hpc.models.registry import Model
from matsci_hpc.telemetry.dynamics.groups import group_name

LEAST_NORM = 1e-3
"""Norm that parameters count with at least."""
TINY = 1e-6
"""Least norm that is divided by."""


@dataclass(frozen=True, slots=True)
class ClippedUnits:
    """How many units of a step were clipped.

    Attributes:
        share: of all units.
        by_group: the same of each layer group (`groups.py`).
    """

    share: float
    by_group: dict[str, float]


class UnitClip:
    """Clips the gradients of a model unit by unit.

    Args:
        ratio: of the norm of a unit's gradient to that of its parameters, at most.
        named: parameters of the model.
        left_alone: names of those that are not clipped.
    """

    def __init__(self, ratio: float, named: Iterable[tuple[str, Parameter]], left_alone: Container[str] = ()) -> None:
        self._ratio = ratio
        self._named = [(name, each) for name, each in named if name not in left_alone]

    @torch.no_grad()
    def clip(self) -> ClippedUnits:
        """Scale down the gradients of the parameters that are trained now, in place.

        They are the same on all ranks, and so is what becomes of them.
        """
        counts: list[Tensor] = []
        groups: dict[str, list[int]] = {}
        units: list[int] = []
        trained = [(name, each) for name, each in self._named if each.requires_grad]
        for place, (name, each) in enumerate(trained):
            gradient = each.grad
            size = unit_norms(each)
            groups.setdefault(group_name(name), []).append(place)
            units.append(size.numel())
            if gradient is None:
                counts.append(torch.zeros((), dtype=torch.int64, device=each.device))
                continue
            bound = self._ratio * size.clamp(min=LEAST_NORM)
            norm = unit_norms(gradient)
            above = norm > bound
            # Where it is not above, the factor is exactly 1: such gradients keep every bit.
            gradient.mul_(torch.where(above, bound / norm.clamp(min=TINY), torch.ones_like(norm)))
            counts.append(above.sum())
        clipped = torch.stack(counts).tolist() if counts else []  # one wait for the device
        return ClippedUnits(
            share=sum(clipped) / max(sum(units), 1),
            by_group={
                name: sum(clipped[place] for place in places) / sum(units[place] for place in places)
                for name, places in groups.items()
            },
        )


def unit_norms(values: Tensor) -> Tensor:
    """Norm of each unit, shaped so that it multiplies them: [rows, 1, ...] of a matrix, [] of a vector."""
    if values.squeeze().ndim < 2:
        norm: Tensor = torch.linalg.vector_norm(values)
        return norm
    rows: Tensor = torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)
    return rows


def last_layers(model: Model) -> set[str]:
    """Names of the parameters of the last linear layer of every head."""
    found = set()
    for prefix, module in model.heads.named_modules(prefix="heads"):
        if isinstance(module, nn.Sequential):
            found |= {f"{prefix}.{len(module) - 1}.{name}" for name, _ in module[-1].named_parameters()}
    return found
