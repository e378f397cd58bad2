"""Square norms of the parts of a step's gradient, from which its noise scale follows."""

import torch

from matsci_hpc.loading.loader import StepWork
from matsci_hpc.telemetry.dynamics.noise_scale import NoiseEstimate, estimate_noise, weighted_square
from matsci_hpc.training.setup import Run


class NoiseMeter:
    """Parts are the shares of the ranks, virtual ones counted; with one rank alone, the parts it computes in turn.

    Args:
        run: its ranks.

    Attributes:
        active: whether the present step is measured.
    """

    def __init__(self, run: Run) -> None:
        self._comm = run.comm
        self.active = False
        self._sums = torch.zeros(2, dtype=torch.float64)

    def begin(self, *, active: bool) -> None:
        """A new step."""
        self.active = active
        self._sums.zero_()

    def add(self, square: float, graphs: int, work: StepWork) -> None:
        """A part of the step's summed gradient.

        Args:
            square: its square norm.
            graphs: that it comes from.
            work: of the step.
        """
        self._sums += torch.tensor([weighted_square(square, graphs, work.graphs), float(graphs > 0)])

    def splits(self, work: StepWork) -> bool:
        """Whether the parts that a rank computes in turn count one by one."""
        return self.active and self._comm.size == 1 and len(work.share_parts) == 1 and len(work.batches) > 1

    def finish(self, work: StepWork, norm: float) -> NoiseEstimate | None:
        """The estimates of a measured step; collective.

        Args:
            work: of the step.
            norm: of its summed gradient.
        """
        if not self.active:
            return None
        self._comm.all_reduce(self._sums)
        weighted, parts = self._sums.tolist()
        return estimate_noise(weighted, int(parts), norm * norm, work.graphs)
