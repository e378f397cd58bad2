"""What the edge network is told about the length of an edge."""

import math

import torch
from torch import Tensor, nn


class RadialFeatures(nn.Module):
    """`4 log(1 + d^2)`, followed by `count` Gaussians of d.

    The E(n)-GNN feeds d^2, which up to a cutoff of 6 angstrom runs from 0 to 36 and would swamp the features
    of crystals. Its logarithm carries the same information, follows d^2 below one angstrom, where the points
    of symmetry clouds differ, and cannot run away when layers move atoms apart. The 4 makes up for the length
    being one input among 2 width + 1 of the same initial weight: without it, a small regression on distances
    and angles took three times as many steps to begin to learn.

    The Gaussians stand at equal spacing from 0 to the cutoff, one spacing wide:
    `exp(-((d - c_k) / spacing)^2 / 2)`.

    Args:
        count: number of Gaussians; 0 for none.
        cutoff: radius of the neighbour list, angstrom.
    """

    centers: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.width = 1 + count
        self.spacing = cutoff / max(count - 1, 1)
        self.register_buffer("centers", torch.linspace(0.0, cutoff, count), persistent=False)

    def forward(self, distance_squared: Tensor, distance: Tensor) -> Tensor:
        """From squared angstrom and angstrom, both [E, 1], to [E, 1 + count]."""
        logarithm = 4.0 * torch.log1p(distance_squared)
        if self.width == 1:
            return logarithm
        steps = (distance - self.centers) / self.spacing
        return torch.cat((logarithm, torch.exp(-0.5 * steps.square())), dim=1)


def cosine_envelope(distance: Tensor, cutoff: float) -> Tensor:
    """`(cos(pi d / cutoff) + 1) / 2` within the cutoff, 0 beyond: value and slope vanish there.

    Source: Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007), eq. 4.
    """
    return 0.5 * (torch.cos(distance.clamp(max=cutoff) * (math.pi / cutoff)) + 1.0)
