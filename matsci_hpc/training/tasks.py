"""What is learned: losses of targets, normalised over all ranks, and the sums from which metrics follow."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from matsci_hpc.config.gradient_targets import unfit_gradients
from matsci_hpc.config.train import Target, TrainConfig
from matsci_hpc.confusion import Confusion
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collection import Collection
from matsci_hpc.models.heads import Head
from matsci_hpc.models.registry import Model
from matsci_hpc.models.scaling import Scaling
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import NOT_LEARNED, PER_ATOM, TargetSpec
from matsci_hpc.training.derived import Derivation, derivation_of
from matsci_hpc.training.measures.base import Compared, Measure, Metrics, vector
from matsci_hpc.training.measures.binary import Binary
from matsci_hpc.training.measures.classes import Classes
from matsci_hpc.training.measures.multilabel import MultiLabel
from matsci_hpc.training.measures.regression import Regression
from matsci_hpc.training.precision import Precision


@dataclass(frozen=True, slots=True)
class Task:
    """One target to learn.

    Attributes:
        name: of the target.
        spec: its kind, unit and classes.
        weight: factor of its loss in the total.
        loss: for regression: mse, mae or huber.
        statistics: of the training split, for scaling and for the baseline of held-out errors; of a derived target,
            those of the one it follows from.
        standardised: whether a regression target is learned as `(value - mean) / std`.
        extensive: whether it grows with the number of atoms.
        references: whether energies of the elements are taken off first.
        derivation: how the target follows from another one of the data, if it does.
        training_yes: training samples that are yes of a target that does; None where nobody has counted them.
    """

    name: str
    spec: TargetSpec
    weight: float
    loss: str
    statistics: TargetStatistics
    standardised: bool = True
    extensive: bool = False
    references: bool = False
    derivation: Derivation | None = None
    training_yes: int | None = None

    @property
    def column(self) -> str:
        """The target of the data sets that is read for this one."""
        return self.name if self.derivation is None else self.derivation.source

    @property
    def needs_fit(self) -> bool:
        """Whether its scaling follows from compositions, which no manifest holds: see `scaling_fit.py`."""
        return self.extensive or self.references

    @property
    def scaling(self) -> Scaling:
        """As far as it is known from statistics; (0, 1) if the target is no number or its scaling has to be fitted."""
        known = self.spec.kind == "regression" and self.standardised and not self.needs_fit
        if not known or self.statistics.mean is None:
            return Scaling(0.0, 1.0, self.extensive, self.references)
        return Scaling(self.statistics.mean, self.statistics.std or 1.0)

    @property
    def measure(self) -> Measure:
        """Loss and metrics of its kind."""
        names, counts, mean = self.spec.classes or (), self.statistics.class_counts, self.statistics.mean
        if self.spec.kind == "class":
            return Classes(names, counts.index(max(counts)) if counts else None)
        if self.spec.kind == "binary":
            if self.derivation is None:
                return Binary(None if mean is None else mean > 0.5)
            yes = self.training_yes  # the statistics are those of its source
            return Binary(None if yes is None else yes > self.statistics.count - yes)
        if self.spec.kind == "multilabel":
            return MultiLabel(names)
        return Regression(self.loss, self.spec.unit, self.statistics.mean or 0.0, self.extensive, self.references)

    def compare(self, model: Model, output: Tensor, batch: Batch) -> Compared:
        """Its output beside what is true."""
        head = cast("Head", model.head(self.name))  # targets of atoms are atom tasks
        values = batch.targets[self.column]
        if self.derivation is not None:
            values = self.derivation.of(values)
        return Compared(head, output, values, batch.present[self.column], batch)

    def losses(self, model: Model, output: Tensor, batch: Batch) -> Tensor:
        """Loss of every sample that carries the target, in standardised units: [samples present]."""
        return self.measure.losses(self.compare(model, output, batch))

    def sums(self, model: Model, output: Tensor, batch: Batch) -> Tensor:
        """What `metrics` needs, as sums over the samples that carry the target: float64 [sum_count]."""
        compared = self.compare(model, output, batch)
        return vector(compared.present.sum(), self.measure.losses(compared).sum(), self.measure.sums(compared))

    def scores(self, model: Model, output: Tensor, batch: Batch) -> Tensor | None:
        """Outputs one by one where metrics need them, as of `Binary.scores`."""
        measure = self.measure
        return measure.scores(self.compare(model, output, batch)) if isinstance(measure, Binary) else None

    @property
    def sum_count(self) -> int:
        """Length of the vector that `sums` gives."""
        return 2 + self.measure.length

    def metrics(self, sums: Tensor, scores: Tensor | None = None) -> tuple[Metrics, dict[str, Metrics]]:
        """Metrics from the sums of all ranks, and accuracy by class where there are classes.

        Args:
            sums: as of `sums`.
            scores: of all ranks, as of `scores`, where there are any; without, there is no AUROC.
        """
        total, loss, *rest = sums.tolist()
        count = int(total)
        if count == 0:
            return {"samples": 0}, {}
        metrics, by_class = self.measure.metrics(rest, count, scores)
        return {"samples": count, "loss": loss / count} | metrics, by_class

    def confusion(self, sums: Tensor) -> Confusion | None:
        """Which class is taken for which, from the sums of all ranks; None where there are no classes or no samples."""
        measure, (total, _, *rest) = self.measure, sums.tolist()
        if total == 0:
            return None
        if isinstance(measure, Classes):
            return measure.confusion(rest)
        return measure.confusion(rest, int(total)) if isinstance(measure, Binary) else None


def build_tasks(config: TrainConfig, collection: Collection) -> list[Task]:
    """The targets of a run, in the order of their names; where the config names none, all of whole structures.

    Raises:
        UserInputError: a target that no data set has, that no training sample carries, that cannot be learned, or that
            is not the gradient that it is said to be.
    """
    derived = {name: section for name, section in config.targets.items() if section.of is not None}
    for name in config.targets.keys() - derived.keys():
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
    return [_task(name, config.targets.get(name, Target()), config.data.split, collection) for name in names]


def _task(name: str, section: Target, split: str, collection: Collection) -> Task:
    from matsci_hpc.training.atom_tasks import AtomTask  # which is a task, too

    derivation = derivation_of(name, section, collection.targets)
    spec = collection.targets[name] if derivation is None else TargetSpec(kind="binary")
    column = name if derivation is None else derivation.source
    statistics = collection.statistics(split, column)
    if statistics.count == 0:
        raise UserInputError(
            f"targets.{name}: no sample of split {split!r} carries {'it' if column == name else column}"
        )
    if spec.kind != "regression" or spec.per_atom:
        what = "has a value for every atom" if spec.per_atom else f"is a {spec.kind} target, not a number"
        for key in ("extensive", "references"):
            if getattr(section, key):
                raise UserInputError(f"targets.{name}.{key}: it {what}; leave it out")
    if section.extensive and PER_ATOM.search(spec.unit or ""):
        raise UserInputError(
            f"targets.{name}.extensive: its unit is {spec.unit}, so its values do not grow with the cell; leave it out"
        )
    kind = AtomTask if spec.per_atom else Task
    return kind(
        name,
        spec,
        section.weight,
        "huber" if section.loss == "auto" else section.loss,
        statistics,
        standardised=section.scaling != "none",
        extensive=section.extensive,
        references=section.references,
        derivation=derivation,
    )


def local_losses(
    tasks: list[Task], model: Model, batch: Batch, counts: dict[str, int], precision: Precision
) -> dict[str, Tensor]:
    """This rank's part of each target's loss: the sum over its samples, or atoms, divided by the count over all ranks.

    Added up over the ranks these are the exact means over the global batch, and so are their gradients.

    Args:
        tasks: targets to learn.
        model: called once.
        batch: this rank's samples, at least one.
        counts: samples of the global batch that carry each target of the data, or atoms where every atom has a value,
            known from the plan.
        precision: in which the model is called and the losses are computed.
    """
    with precision.autocast():
        outputs = model(batch)
    return {
        task.name: task.losses(model, precision.widen(outputs[task.name]), batch).sum() / counts[task.column]
        for task in tasks
        if counts[task.column]
    }


def weighted_sum(tasks: list[Task], losses: dict[str, Tensor]) -> Tensor:
    """The losses that are there, each times its weight from the config."""
    return sum((task.weight * losses[task.name] for task in tasks if task.name in losses), torch.zeros(()))
