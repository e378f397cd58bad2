"""What a kind of target brings: its loss, and the sums over samples from which its metrics follow.

Sums add up over batches and ranks, so metrics are those of the whole split whatever the number of ranks.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.heads import Head

Metrics = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a head gave for a batch, beside what is true.

    Attributes:
        head: of the target.
        output: [G] or [G, classes], as the head gives it.
        values: true ones, [G] or [G, classes]; arbitrary where absent.
        present: bool [G], which graphs carry the target.
        batch: the graphs.
    """

    head: Head
    output: Tensor
    values: Tensor
    present: Tensor
    batch: Batch

    @property
    def known(self) -> tuple[Tensor, Tensor]:
        """Output and values of the graphs that carry the target."""
        return self.output[self.present], self.values[self.present]


class Measure(Protocol):
    """Loss and metrics of one kind of target."""

    @property
    def length(self) -> int:
        """Of what `sums` gives."""
        ...

    @property
    def scored(self) -> bool:
        """Whether `metrics` needs scores."""
        ...

    def losses(self, compared: Compared) -> Tensor:
        """Loss of every graph that carries the target: [graphs present]."""
        ...

    def sums(self, compared: Compared) -> Tensor:
        """Sums over the graphs that carry the target: float64 [length]."""
        ...

    def metrics(self, sums: list[float], count: int, scores: Tensor | None) -> tuple[Metrics, dict[str, Metrics]]:
        """Metrics, and those of each class by its name.

        Args:
            sums: over all ranks.
            count: samples that they are over, at least 1.
            scores: of all ranks, float64 [count, 2]: output, and 1 or 0 for what is true.
        """
        ...


def vector(*values: Tensor) -> Tensor:
    """Numbers and lists of them as one list: float64."""
    return torch.cat([value.detach().double().reshape(-1) for value in values])


def f1_score(hits: float, named: float, true: float) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is true and nothing was named.

    Args:
        hits: samples that are true and were named.
        named: samples that were named.
        true: samples that are true.
    """
    return 2 * hits / (named + true) if named + true else 0.0
