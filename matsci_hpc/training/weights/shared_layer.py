"""The last layer that all targets share, and how hard each target pulls at it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.exchange import reached
from matsci_hpc.parallel.together import on_first
from matsci_hpc.parallel.tree import TreeSum, tree_sum
from matsci_hpc.training.setup import Run

FEW = 2
"""Samples of the batch on which is seen which parameters the targets reach."""


def last_shared_layer(run: Run) -> str:
    """Name of the last matrix of the encoder that is trained and that the targets reach; collective.

    Raises:
        UserInputError: there is none.
    """
    name: str | None = on_first(run.comm, lambda: _find(run))  # for all: a compiler may change what others see
    if name is None:
        raise UserInputError(
            "weighting.rule: gradnorm needs a matrix of the encoder that is trained, and there is none; "
            "take uncertainty, or fixed weights"
        )
    return name


def _find(run: Run) -> str | None:
    batch = run.precision.cast(checked_batch(run.collection, run.collection.in_split(run.config.data.split, FEW)[:FEW]))
    run.freezing.begin(run.config.steps - 1)  # the same layer for every life of the run, whatever is frozen by then
    run.model.eval()  # a look leaves no trace in layers that keep statistics or draw random numbers
    with run.precision.autocast():
        outputs = run.model(batch)
    run.model.train()
    found = reached(outputs.values())
    named = [(name, each) for name, each in run.model.named_parameters() if name.startswith("encoder.")]
    matrices = [name for name, each in named if each.ndim >= 2 and each.requires_grad and each in found]
    run.freezing.begin(run.state.step)
    return matrices[-1] if matrices else None


class SharedGradients:
    """Gradients of each target's loss at one parameter, added up over the parts of a step.

    Args:
        names: of the targets.
        parameter: of the encoder.
        comm: the ranks.
        ordered: add up in the order of `tree.py`.

    Attributes:
        active: whether the present step is measured.
    """

    def __init__(self, names: Sequence[str], parameter: Parameter, comm: Communicator, *, ordered: bool) -> None:
        self.active = False
        self._names = list(names)
        self._parameter = parameter
        self._comm = comm
        self._ordered = ordered
        self._share = self._zeros()
        self._shares = TreeSum()

    def begin(self, *, active: bool) -> None:
        """A new step; while the parameter is frozen, none is measured."""
        self.active = active and self._parameter.requires_grad
        self._share, self._shares = self._zeros(), TreeSum()

    def add(self, losses: dict[str, Tensor]) -> None:
        """A part of the step; before its backward pass, whose graph is kept."""
        if not self.active:
            return
        for row, name in enumerate(self._names):
            if name in losses and losses[name].requires_grad:
                (found,) = torch.autograd.grad(losses[name], self._parameter, retain_graph=True, allow_unused=True)
                if found is not None:
                    self._share[row] += found.detach().cpu().double().reshape(-1)

    def end_share(self) -> None:
        """The parts so far are those of one of the ranks that this one stands for."""
        if self.active:
            self._shares.add(self._share)
            self._share = self._zeros()

    def finish(self) -> dict[str, float]:
        """Norms over the global batch; none if the step is not measured. Collective where it is."""
        if not self.active:
            return {}
        self.active = False
        total = self._shares.total()
        if self._ordered:
            total = tree_sum(self._comm.all_gather(total))
        else:
            self._comm.all_reduce(total)
        return dict(zip(self._names, total.norm(dim=1).tolist(), strict=True))

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self._names), self._parameter.numel(), dtype=torch.float64)
