"""Losses and metrics of targets of atoms against plain numpy, and which configs can learn them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import collate, random_graph

from matsci_hpc.config.model import Egnn as ModelConfig
from matsci_hpc.models.registry import build_model
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.atom_tasks import AtomTask
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import local_losses

SMALL = ModelConfig(layers=1, width=4, message_width=4, position_width=4, embedding_width=6)
PRESENT = torch.tensor([True, False, True, True, False])
ATOMS = [2, 3, 4, 5, 6]
KNOWN = np.repeat(PRESENT.numpy(), ATOMS)
SHAPES = {"vector": (3,), "number": ()}


def task_of(what: str, loss: str = "huber") -> AtomTask:
    spec = TargetSpec(kind="regression", unit="eV/angstrom", shape=SHAPES[what], per_atom=True)
    # Numbers of mean 0.5 and deviation 2.
    return AtomTask("t", spec, 1.0, loss, TargetStatistics(count=9, numbers=90, mean=0.5, squared_deviations=360.0))


def model_and_batch(task: AtomTask):
    torch.manual_seed(0)
    model = build_model(SMALL, {"t": task.spec}, 3.0, {"t": task.scaling}).double()
    batch = collate([random_graph(i, atoms) for i, atoms in enumerate(ATOMS)], 3.0)
    values = np.random.default_rng(5).normal(size=(sum(ATOMS), *task.spec.shape))
    values[0] = 0.0  # has no direction
    batch.targets["t"], batch.present["t"] = torch.tensor(values), PRESENT
    return model, batch


def known_values(model, batch):
    """Predictions and values of the atoms that carry the target, in its unit."""
    predicted = model.physical(model(batch))["t"].detach().numpy()
    return predicted[KNOWN], batch.targets["t"].numpy()[KNOWN]


@pytest.mark.parametrize("what", SHAPES)
def test_without_scaling_the_loss_is_of_the_values_themselves(what):
    task = replace(task_of(what, "mae"), standardised=False)
    model, batch = model_and_batch(task)
    predicted, value = known_values(model, batch)
    error = np.linalg.norm(predicted - value, axis=1) if what == "vector" else np.abs(predicted - value)
    assert task.losses(model, model(batch)["t"], batch).mean().item() == pytest.approx(error.mean(), rel=1e-9)
    metrics, _ = task.metrics(task.sums(model, model(batch)["t"], batch))
    expected = value if what == "vector" else value - 0.5
    assert metrics["baseline_mae"] == pytest.approx(np.abs(expected).mean(), rel=1e-9)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize("what", SHAPES)
def test_losses_are_means_over_atoms(what, loss):
    task = task_of(what, loss)
    model, batch = model_and_batch(task)
    predicted, value = known_values(model, batch)
    spread = np.hypot(0.5, 2.0) if what == "vector" else 2.0
    error = (predicted - value) / spread
    size = np.linalg.norm(error, axis=1) if what == "vector" else np.abs(error)
    expected = {
        "mse": (error**2).mean(),
        "mae": size.mean(),
        "huber": np.where(size < 1, size**2 / 2, size - 0.5).mean(),
    }[loss]
    counts = {"t": int(KNOWN.sum())}
    found = local_losses([task], model, batch, counts, Precision("float64"))["t"]
    assert float(found.detach()) == pytest.approx(expected)


@pytest.mark.parametrize("what", SHAPES)
def test_metrics_are_of_components_and_physical(what):
    task = task_of(what)
    model, batch = model_and_batch(task)
    outputs, parts = model(batch)["t"], []
    for keep in (torch.arange(5) < 2, torch.arange(5) >= 2):  # as over two ranks
        batch.present["t"] = PRESENT & keep
        parts.append(task.sums(model, outputs, batch))
    batch.present["t"] = PRESENT
    assert len(parts[0]) == task.sum_count
    metrics, _ = task.metrics(parts[0] + parts[1])
    predicted, value = known_values(model, batch)
    offset = value if what == "vector" else value - 0.5
    assert (metrics["samples"], metrics["atoms"], metrics["unit"]) == (3, 11, "eV/angstrom")
    assert metrics["mae"] == pytest.approx(np.abs(predicted - value).mean())
    assert metrics["rmse"] == pytest.approx(np.sqrt(((predicted - value) ** 2).mean()))
    assert metrics["baseline_mae"] == pytest.approx(np.abs(offset).mean())
    assert metrics["baseline_rmse"] == pytest.approx(np.sqrt((offset**2).mean()))
    if what == "vector":
        p, v = predicted[1:], value[1:]
        lengths = np.linalg.norm(p, axis=1) * np.linalg.norm(v, axis=1)
        # The two atoms of the first graph have no neighbours, and a prediction without direction is right by nothing.
        assert (lengths == 0).sum() == 1
        cosine = np.divide((p * v).sum(1), lengths, out=np.zeros(10), where=lengths > 0)
        assert metrics["cosine"] == pytest.approx(cosine.mean())
    else:
        assert "cosine" not in metrics


def test_nobody_carries_it():
    task = task_of("vector")
    model, batch = model_and_batch(task)
    batch.present["t"] = torch.zeros(5, dtype=torch.bool)
    assert task.metrics(task.sums(model, model(batch)["t"], batch)) == ({"samples": 0}, {})
    assert local_losses([task], model, batch, {"t": 0}, Precision("float64")) == {}


def test_the_loss_of_a_perfect_prediction_has_a_slope():
    """The length of a vector has none at zero."""
    task = task_of("vector", "mae")
    model, batch = model_and_batch(task)
    batch.targets["t"] = model.physical(model(batch))["t"].detach()
    local_losses([task], model, batch, {"t": 11}, Precision("float64"))["t"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("what", SHAPES)
def test_absent_targets_touch_neither_loss_nor_gradient(what):
    task = task_of(what)
    model, batch = model_and_batch(task)

    def gradient() -> torch.Tensor:
        model.zero_grad()
        local_losses([task], model, batch, {"t": 11}, Precision("float64"))["t"].backward()
        return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])

    before = gradient()
    batch.targets["t"][~torch.tensor(KNOWN)] = 1e9
    assert torch.equal(gradient(), before)
