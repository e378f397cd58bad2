"""Losses and metrics against plain numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import collate, random_graph

from matsci_hpc.config.model import Egnn as ModelConfig
from matsci_hpc.models.registry import build_model
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.derived import Derivation
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import Task, local_losses

SMALL = ModelConfig(layers=1, width=4, message_width=4, position_width=4, embedding_width=6)
RNG = np.random.default_rng(5)
PRESENT = torch.tensor([True, False, True, True, True, False, True])


def task_of(kind: str, classes: tuple[str, ...] | None = None, **statistics) -> Task:
    spec = TargetSpec(kind=kind, unit="eV" if kind == "regression" else None, classes=classes)
    return Task("t", spec, 1.0, "huber", TargetStatistics(count=9, **statistics))


def model_and_batch(task: Task, values: torch.Tensor):
    torch.manual_seed(0)
    model = build_model(SMALL, {"t": task.spec}, 3.0, {"t": task.scaling}).double()
    batch = collate([random_graph(i, 2 + i) for i in range(7)], 3.0)
    batch.targets["t"], batch.present["t"] = values, PRESENT
    return model, batch


def metrics_of(task: Task, model, batch) -> dict:
    # Summed over two parts, as over two ranks.
    outputs = model(batch)["t"]
    parts = []
    for keep in (torch.arange(7) < 3, torch.arange(7) >= 3):
        batch.present["t"] = PRESENT & keep
        parts.append(task.sums(model, outputs, batch))
    batch.present["t"] = PRESENT
    assert len(parts[0]) == task.sum_count
    return task.metrics(parts[0] + parts[1])


def test_regression_metrics_are_physical_and_have_a_baseline():
    task = task_of("regression", mean=2.0, squared_deviations=9 * 4.0)
    values = torch.tensor(RNG.normal(2, 2, 7))
    model, batch = model_and_batch(task, values)
    metrics, _ = metrics_of(task, model, batch)
    known = PRESENT.numpy()
    y, predicted = values.numpy()[known], model.physical(model(batch))["t"].detach().numpy()[known]
    assert metrics["samples"] == 5
    assert metrics["mae"] == pytest.approx(np.abs(predicted - y).mean())
    assert metrics["rmse"] == pytest.approx(np.sqrt(((predicted - y) ** 2).mean()))
    assert metrics["baseline_mae"] == pytest.approx(np.abs(y - 2.0).mean())
    assert metrics["baseline_rmse"] == pytest.approx(np.sqrt(((y - 2.0) ** 2).mean()))
    assert metrics["unit"] == "eV"


def test_class_metrics_by_class_and_chance():
    task = task_of("class", ("a", "b", "c"))
    values = torch.tensor([0, 1, 2, 2, 0, 1, 2])
    model, batch = model_and_batch(task, values)
    metrics, by_class = metrics_of(task, model, batch)
    named = model(batch)["t"].argmax(dim=1)
    right = (named == values)[PRESENT]
    assert metrics["accuracy"] == pytest.approx(float(right.double().mean()))
    assert metrics["chance"] == pytest.approx(3 / 5)  # c stands three times among the five that are present
    assert by_class["b"] == {"accuracy": None, "count": 0}
    assert by_class["c"]["count"] == 3


def test_chance_names_the_commonest_class_of_the_training_samples():
    task = task_of("class", ("a", "b", "c"), class_counts=[4, 2, 3])
    model, batch = model_and_batch(task, torch.tensor([0, 1, 2, 2, 0, 1, 2]))
    assert metrics_of(task, model, batch)[0]["chance"] == pytest.approx(2 / 5)  # a, though c is commoner here
    task = task_of("binary", mean=0.3)
    model, batch = model_and_batch(task, torch.tensor([1.0, 1, 1, 1, 0, 1, 1]))
    assert metrics_of(task, model, batch)[0]["chance"] == pytest.approx(1 / 5)  # no, though yes is commoner here
    derived = replace(task, derivation=Derivation("energy", 0.5, below=True))  # the mean is that of the energy
    assert derived.measure.commonest is None


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_yes_or_no_metrics(kind):
    labels = ("x", "y", "z")
    task = task_of(kind, labels if kind == "multilabel" else None)
    shape = (7, 3) if kind == "multilabel" else (7,)
    values = torch.tensor(RNG.integers(0, 2, shape)).double()
    model, batch = model_and_batch(task, values)
    metrics, _ = metrics_of(task, model, batch)
    named, true = (model(batch)["t"] > 0)[PRESENT], (values > 0.5)[PRESENT]
    if kind == "binary":
        assert metrics["accuracy"] == pytest.approx(float((named == true).double().mean()))
        assert metrics["chance"] == pytest.approx(max(true.double().mean().item(), 1 - true.double().mean().item()))
    else:
        hits = int((named & true).sum())
        assert metrics["f1"] == pytest.approx(2 * hits / int(named.sum() + true.sum()))
        assert metrics["exact"] == pytest.approx(float((named == true).all(dim=1).double().mean()))


def test_absent_targets_touch_neither_loss_nor_gradient():
    task = task_of("regression", mean=0.0, squared_deviations=9.0)
    values = torch.tensor(RNG.normal(size=7))
    model, batch = model_and_batch(task, values)
    counts = {"t": int(PRESENT.sum())}

    def gradient() -> torch.Tensor:
        model.zero_grad()
        local_losses([task], model, batch, counts, Precision("float64"))["t"].backward()
        return torch.cat([each.grad.reshape(-1) for each in model.parameters()])

    before = gradient()
    batch.targets["t"] = torch.where(PRESENT, values, torch.tensor(1e9, dtype=torch.float64))
    assert torch.equal(gradient(), before)


def test_a_step_in_which_nobody_carries_the_target_has_no_loss():
    task = task_of("regression", mean=0.0, squared_deviations=9.0)
    model, batch = model_and_batch(task, torch.zeros(7, dtype=torch.float64))
    assert local_losses([task], model, batch, {"t": 0}, Precision("float64")) == {}
