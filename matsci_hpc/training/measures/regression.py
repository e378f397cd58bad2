"""Numbers: errors in the target's unit, beside those of knowing nothing and of knowing the composition alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from matsci_hpc.models.scaling import atom_counts
from matsci_hpc.training.measures.base import Compared, Metrics, vector

LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}


@dataclass(frozen=True, slots=True)
class Regression:
    """A number per structure.

    Attributes:
        loss: mse, mae or huber, of standardised values.
        unit: of the target.
        mean: of the training values.
        extensive: whether errors are also told per atom.
        references: whether errors of the composition alone are also told.
        scored: never.
    """

    loss: str
    unit: str | None
    mean: float
    extensive: bool = False
    references: bool = False
    scored: bool = False

    @property
    def length(self) -> int:
        """Absolute and squared errors of each predictor."""
        return 2 * (2 + 2 * self.extensive + self.references)

    def losses(self, compared: Compared) -> Tensor:
        """Loss of every graph that carries the target: [graphs present]."""
        values = compared.head.standardise(compared.values, compared.batch)[compared.present]
        return LOSSES[self.loss](compared.output[compared.present], values, reduction="none")

    def sums(self, compared: Compared) -> Tensor:
        """Of the head, the training mean, both of them per atom, and the composition alone: |error|, error^2."""
        head, batch, output = compared.head, compared.batch, compared.output.detach()
        values = compared.values.double()
        errors = [
            head.physical(output, batch).double() - values,
            head.training_mean(self.mean, values, batch) - values,
        ]
        if self.extensive:
            errors += [each / atom_counts(batch, each) for each in errors]
        if self.references:
            errors.append(head.physical(torch.zeros_like(output), batch).double() - values)
        known = [each[compared.present] for each in errors]
        return vector(*(torch.stack((each.abs().sum(), each.square().sum())) for each in known))

    def metrics(self, sums: list[float], count: int, scores: Tensor | None) -> tuple[Metrics, dict[str, Metrics]]:
        """MAE, RMSE and R^2 = 1 - sum (predicted - y)^2 / sum (training mean - y)^2."""
        del scores
        names = [("", ""), ("baseline_", "")]
        names += [("", "_per_atom"), ("baseline_", "_per_atom")] if self.extensive else []
        names += [("composition_", "")] if self.references else []
        metrics: Metrics = {}
        for (of, per), absolute, squared in zip(names, sums[::2], sums[1::2], strict=True):
            metrics[f"{of}mae{per}"] = absolute / count
            metrics[f"{of}rmse{per}"] = math.sqrt(squared / count)
        squared, of_mean = sums[1], sums[3]
        return metrics | {"r2": 1 - squared / of_mean if of_mean > 0 else None, "unit": self.unit}, {}
