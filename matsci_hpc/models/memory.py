"""Memory that training a model takes, measured on a small batch."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.registry import Model


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Bytes of the tensors of a model in training, on one rank.

    Attributes:
        parameters: of the weights.
        gradients: of the gradients of those that are trained.
        optimizer: of the two moments that Adam keeps of each of these.
        work_per_cost: at the peak of forward and backward, besides the above and with the batch, per unit of
            predicted cost.
        numbers: of parameters, a count.
        trained: of those that are trained, a count.
        average: of a running mean of the weights, if the run keeps one.
    """

    parameters: int
    gradients: int
    optimizer: int
    work_per_cost: float
    numbers: int
    trained: int
    average: int = 0

    @property
    def fixed(self) -> int:
        """Bytes that are there whatever a rank computes."""
        return self.parameters + self.gradients + self.optimizer + self.average

    def total(self, cost: float) -> float:
        """Bytes at the peak while a rank computes samples of this predicted cost at once."""
        return self.fixed + self.work_per_cost * cost


def measure_memory(model: Model, batch: Batch, cost: float, loss: Callable[[], Tensor]) -> ModelMemory:
    """Run a model forward and backward and keep the peak of the tensors that live at once.

    Args:
        model: in the precision of the run; parameters that ask for no gradient are frozen.
        batch: some real samples, in the same precision.
        cost: predicted cost of the batch.
        loss: computes the loss of the model on the batch.
    """
    every = list(model.parameters())
    trained = [each for each in every if each.requires_grad]
    for each in trained:
        each.grad = torch.zeros_like(each)  # they are there before the first step
    fixed = [*every, *model.buffers(), *(each.grad for each in trained if each.grad is not None)]
    with LiveBytes(fixed) as live:
        for tensor in _tensors(batch):
            live.note(tensor)
        loss().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    weights, gradients = (sum(each.nbytes for each in some) for some in (every, trained))
    numbers, of_trained = (sum(each.numel() for each in some) for some in (every, trained))
    return ModelMemory(weights, gradients, 2 * gradients, live.peak / cost, numbers, of_trained)


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as they live; keeps the peak.

    Args:
        fixed: tensors that are not counted.
    """

    def __init__(self, fixed: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in fixed}
        self._live = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self.note(each)
        return made

    def note(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, unless it is counted already."""
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or key in self._seen:
            return
        self._seen.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._live -= size


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for name in batch.__dataclass_fields__:
        value = getattr(batch, name)
        yield from (each for each in tree_leaves(value) if isinstance(each, Tensor))
