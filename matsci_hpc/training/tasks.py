"""What is learned: losses of targets, normalised over all ranks, and the sums from which metrics follow."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from matsci_hpc.config.gradient_targets import unfit_gradients
from matsci_hpc.config.train import Target, TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collection import Collection
from matsci_hpc.models.registry import Model
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import NOT_LEARNED, TargetSpec
from matsci_hpc.training.precision import Precision

Metrics = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Task:
    """One target to learn.

    Attributes:
        name: of the target.
        spec: its kind, unit and classes.
        weight: factor of its loss in the total.
        loss: for regression: mse, mae or huber.
        statistics: of the training split, for scaling and for the baseline of held-out errors.
    """

    name: str
    spec: TargetSpec
    weight: float
    loss: str
    statistics: TargetStatistics

    @property
    def scaling(self) -> tuple[float, float]:
        """Mean and standard deviation of the training values; (0, 1) if the target is no number."""
        if self.spec.kind != "regression" or self.statistics.mean is None:
            return 0.0, 1.0
        return self.statistics.mean, self.statistics.std or 1.0

    def losses(self, model: Model, output: Tensor, batch: Batch) -> Tensor:
        """Loss of every sample that carries the target, in standardised units: [samples present]."""
        present = batch.present[self.name]
        prediction, value = output[present], batch.targets[self.name][present]
        if self.spec.kind == "class":
            return functional.cross_entropy(prediction, value, reduction="none")
        if self.spec.kind in {"binary", "multilabel"}:
            losses = functional.binary_cross_entropy_with_logits(prediction, value, reduction="none")
            return losses.mean(dim=1) if self.spec.kind == "multilabel" else losses
        value = model.standardise(self.name, value)
        if self.loss == "mse":
            return functional.mse_loss(prediction, value, reduction="none")
        if self.loss == "mae":
            return functional.l1_loss(prediction, value, reduction="none")
        return functional.huber_loss(prediction, value, reduction="none")

    def sums(self, model: Model, output: Tensor, batch: Batch) -> Tensor:
        """What `metrics` needs, as sums over the samples that carry the target: float64 [sums of this kind]."""
        present = batch.present[self.name]
        count = present.sum()
        loss = self.losses(model, output, batch).sum()
        prediction, value = output[present].detach(), batch.targets[self.name][present]
        if self.spec.kind == "class":
            correct = prediction.argmax(dim=1) == value
            classes = len(self.spec.classes or ())
            by_class = torch.bincount(value, minlength=classes), torch.bincount(value[correct], minlength=classes)
            return _vector(count, loss, *by_class)
        if self.spec.kind == "binary":
            return _vector(count, loss, ((prediction > 0) == (value > 0.5)).sum(), (value > 0.5).sum())
        if self.spec.kind == "multilabel":
            named, true = prediction > 0, value > 0.5
            return _vector(count, loss, (named == true).all(dim=1).sum(), (named & true).sum(), named.sum(), true.sum())
        predicted = model.head(self.name).physical(prediction).double()
        value = value.double()
        error, offset = predicted - value, value - self.scaling[0]
        return _vector(count, loss, error.abs().sum(), error.square().sum(), offset.abs().sum(), offset.square().sum())

    @property
    def sum_count(self) -> int:
        """Length of the vector that `sums` gives."""
        if self.spec.kind == "class":
            return 2 + 2 * len(self.spec.classes or ())
        return {"binary": 4, "multilabel": 6, "regression": 6}[self.spec.kind]

    def metrics(self, sums: Tensor) -> tuple[Metrics, dict[str, Metrics]]:
        """Metrics from the sums of all ranks, and accuracy by class where there are classes."""
        count, loss, *rest = sums.tolist()
        if count == 0:
            return {"samples": 0}, {}
        metrics: Metrics = {"samples": int(count), "loss": loss / count}
        if self.spec.kind == "class":
            return _class_metrics(metrics, rest, self.spec.classes or ())
        if self.spec.kind == "binary":
            share = rest[1] / count
            return metrics | {"accuracy": rest[0] / count, "chance": max(share, 1 - share), "classes": 2}, {}
        if self.spec.kind == "multilabel":
            return metrics | {"exact": rest[0] / count, "f1": 2 * rest[1] / max(rest[2] + rest[3], 1)}, {}
        absolute, squared, base_absolute, base_squared = rest
        return metrics | {
            "mae": absolute / count,
            "rmse": math.sqrt(squared / count),
            "baseline_mae": base_absolute / count,
            "baseline_rmse": math.sqrt(base_squared / count),
            "unit": self.spec.unit,
        }, {}


def build_tasks(config: TrainConfig, collection: Collection) -> list[Task]:
    """The targets of a run, in the order of their names; where the config names none, all of whole structures.

    Raises:
        UserInputError: a target that no data set has, that no training sample carries, that cannot be learned, or that
            is not the gradient that it is said to be.
    """
    from matsci_hpc.training.atom_tasks import AtomTask  # which is a task, too

    for name in config.targets:
        if name not in collection.targets:
            known = ", ".join(sorted(collection.targets)) or "none"
            raise UserInputError(f"targets.{name}: no data set has this target; they have: {known}")
        if not collection.targets[name].is_learnable:
            raise UserInputError(f"targets.{name}: {NOT_LEARNED}; leave it out")
    for fault in unfit_gradients(config.gradients, collection.targets):
        raise UserInputError(fault)
    whole = {name for name, spec in collection.targets.items() if spec.is_number}
    names = sorted(config.targets or whole)
    if not names:
        folders = ", ".join(each.name for each in collection.datasets)
        of_atoms = sorted(name for name, spec in collection.targets.items() if spec.is_learnable)
        if of_atoms:
            raise UserInputError(
                f"no target to learn in {folders}: those of atoms are learned where `targets` names them; it can name "
                f"{', '.join(of_atoms)}"
            )
        if collection.targets:
            raise UserInputError(f"no target to learn in {folders}: {', '.join(collection.targets)}: {NOT_LEARNED}")
        raise UserInputError(f"no target to learn in {folders}; name some under source.targets when preparing the data")
    tasks = []
    for name in names:
        section = config.targets.get(name, Target())
        statistics = collection.statistics(config.data.split, name)
        if statistics.count == 0:
            raise UserInputError(f"targets.{name}: no sample of split {config.data.split!r} carries it")
        loss = "huber" if section.loss == "auto" else section.loss
        kind = AtomTask if collection.targets[name].per_atom else Task
        tasks.append(kind(name, collection.targets[name], section.weight, loss, statistics))
    return tasks


def local_losses(
    tasks: list[Task], model: Model, batch: Batch, counts: dict[str, int], precision: Precision
) -> dict[str, Tensor]:
    """This rank's part of each target's loss: the sum over its samples, or atoms, divided by the count over all ranks.

    Added up over the ranks these are the exact means over the global batch, and so are their gradients.

    Args:
        tasks: targets to learn.
        model: called once.
        batch: this rank's samples, at least one.
        counts: samples of the global batch that carry each target, or atoms where every atom has a value, known from
            the plan.
        precision: in which the model is called and the losses are computed.
    """
    with precision.autocast():
        outputs = model(batch)
    return {
        task.name: task.losses(model, precision.widen(outputs[task.name]), batch).sum() / counts[task.name]
        for task in tasks
        if counts[task.name]
    }


def _class_metrics(metrics: Metrics, sums: list[float], classes: tuple[str, ...]) -> tuple[Metrics, dict[str, Metrics]]:
    counts, correct = sums[: len(classes)], sums[len(classes) :]
    total = sum(counts)
    metrics |= {"accuracy": sum(correct) / total, "chance": max(counts) / total, "classes": len(classes)}
    by_class: dict[str, Metrics] = {
        name: {"accuracy": right / count if count else None, "count": int(count)}
        for name, count, right in zip(classes, counts, correct, strict=True)
    }
    return metrics, by_class


def _vector(*values: Tensor) -> Tensor:
    return torch.cat([value.detach().double().reshape(-1) for value in values])
