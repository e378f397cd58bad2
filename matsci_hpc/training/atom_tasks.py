"""Learning numbers and vectors of every atom: losses over all atoms of a global batch, and metrics over all atoms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.registry import Model
from matsci_hpc.models.scaling import Scaling
from matsci_hpc.training.measures.base import Metrics, vector
from matsci_hpc.training.tasks import Task

DIRECTED = 1e-3
"""A vector has a direction if it is longer than this part of the spread in training: what symmetry makes zero is
rounding, which points anywhere."""


@dataclass(frozen=True, slots=True)
class AtomTask(Task):
    """A target of every atom; each atom of a sample that carries it counts alike.

    The loss of a vector is that of the length of its error, so that it does not depend on how the structure lies:
    `mse` is a third of the square, the mean over components; `mae` the length; `huber` that of the length.
    """

    @property
    def spread(self) -> Scaling:
        """Mean and standard deviation of the training values; of vectors 0 and the root mean square of components."""
        mean, std = self.statistics.mean or 0.0, self.statistics.std or 0.0
        if self.spec.shape:
            return Scaling(0.0, math.hypot(mean, std) or 1.0)
        return Scaling(mean, std or 1.0)

    @property
    def scaling(self) -> Scaling:
        """The spread, unless values are learned as they are."""
        return self.spread if self.standardised else Scaling()

    def losses(self, model: Model, output: Tensor, batch: Batch) -> Tensor:
        """Loss of every atom of the samples that carry the target, in units of its spread: [atoms present]."""
        known = _known_atoms(batch, self.name)
        error = output[known] - model.standardise(self.name, batch.targets[self.name][known])
        if self.spec.shape and self.loss == "mse":
            return error.square().mean(dim=1)
        size = torch.linalg.vector_norm(error, dim=1) if self.spec.shape else error
        nothing = torch.zeros_like(size)
        if self.loss == "mse":
            return functional.mse_loss(size, nothing, reduction="none")
        if self.loss == "mae":
            return functional.l1_loss(size, nothing, reduction="none")
        return functional.huber_loss(size, nothing, reduction="none")

    def sums(self, model: Model, output: Tensor, batch: Batch) -> Tensor:
        """What `metrics` needs, as sums over the atoms of the samples that carry the target: float64 [9]."""
        known = _known_atoms(batch, self.name)
        loss = self.losses(model, output, batch).sum()
        mean, std, *_ = self.spread
        predicted = model.head(self.name).physical(output.detach())[known].double()
        value = batch.targets[self.name][known].double()
        error, offset = predicted - value, value - mean
        found = [batch.present[self.name].sum(), known.sum(), loss]
        found += [error.abs().sum(), error.square().sum(), offset.abs().sum(), offset.square().sum()]
        if not self.spec.shape:
            return vector(*found, loss.new_zeros(2))
        directed = torch.linalg.vector_norm(value, dim=1) > DIRECTED * std
        cosine = functional.cosine_similarity(predicted[directed], value[directed], dim=1)
        return vector(*found, cosine.sum(), directed.sum())

    @property
    def sum_count(self) -> int:
        """Length of the vector that `sums` gives."""
        return 9

    def metrics(self, sums: Tensor, scores: Tensor | None = None) -> tuple[Metrics, dict[str, Metrics]]:
        """Metrics from the sums of all ranks: errors of components in the target's unit, and the mean cosine.

        The baseline is the mean of the training values, and of vectors zero.
        """
        del scores
        samples, atoms, loss, absolute, squared, base_absolute, base_squared, cosine, directed = sums.tolist()
        if atoms == 0:
            return {"samples": 0}, {}
        numbers = atoms * math.prod(self.spec.shape)
        metrics: Metrics = {
            "samples": int(samples),
            "atoms": int(atoms),
            "loss": loss / atoms,
            "mae": absolute / numbers,
            "rmse": math.sqrt(squared / numbers),
            "baseline_mae": base_absolute / numbers,
            "baseline_rmse": math.sqrt(base_squared / numbers),
            "unit": self.spec.unit,
        }
        if self.spec.shape:
            metrics["cosine"] = cosine / directed if directed else None
        return metrics, {}


def _known_atoms(batch: Batch, target: str) -> Tensor:
    """Which atoms belong to a sample that carries a target: bool [A]."""
    return batch.present[target].index_select(0, batch.atom_graph)
