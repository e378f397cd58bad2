"""Metrics by kind of target against scikit-learn, and AUROC against the definition."""

from itertools import product

import numpy as np
import pytest
import torch
from batches import collate, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from matsci_hpc.config.model import Egnn
from matsci_hpc.confusion import MOST_COUNTED
from matsci_hpc.models.registry import build_model
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.measures.auroc import auroc
from matsci_hpc.training.tasks import Task

SMALL = Egnn(layers=1, width=4, message_width=4, position_width=4, embedding_width=6)
COUNT = 40
RNG = np.random.default_rng(11)


def measured(task: Task, output: np.ndarray, values: np.ndarray) -> dict:
    """Metrics of outputs that are given, gathered from three parts as from three ranks; some targets are absent."""
    model = build_model(SMALL, {"t": task.spec}, 3.0, {"t": task.scaling}).double()
    batch = collate([random_graph(0, 2)] * COUNT, 3.0)
    batch.targets["t"] = torch.tensor(values)
    known = np.arange(COUNT) % 5 > 0
    sums, scores = torch.zeros(task.sum_count, dtype=torch.float64), []
    for part in range(3):
        batch.present["t"] = torch.tensor(known & (np.arange(COUNT) % 3 == part))
        sums += task.sums(model, torch.tensor(output), batch)
        scores.append(task.scores(model, torch.tensor(output), batch))
    metrics, _ = task.metrics(sums, torch.cat(scores) if task.measure.scored else None)
    return metrics | {"known": known, "confusion": task.confusion(sums)}


def task_of(kind: str, classes: tuple[str, ...] | None = None) -> Task:
    return Task("t", TargetSpec(kind=kind, classes=classes), 1.0, "huber", TargetStatistics(count=9))


@pytest.mark.parametrize("ties", [False, True])
def test_binary(ties):
    values = (RNG.random(COUNT) < 0.3).astype(float)
    output = RNG.normal(size=COUNT) + values
    output = np.round(output * 2) / 2 if ties else output
    found = measured(task_of("binary"), output, values)
    true, scores = values[found["known"]], output[found["known"]]
    assert len(set(scores)) < len(scores) or not ties
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(true, scores), rel=1e-12)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(true, scores > 0))
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(true, scores > 0))
    assert found["f1"] == pytest.approx(sklearn.f1_score(true, scores > 0))
    assert found["confusion"].classes == ("no", "yes")
    assert np.array_equal(found["confusion"].counts, sklearn.confusion_matrix(true, scores > 0))


def test_classes():
    values = RNG.choice([0, 1, 3], size=COUNT)  # nothing is of class 2, some are named so; class 4 is neither
    output = RNG.normal(size=(COUNT, 5)) + 1.5 * np.eye(5)[values]
    output[:, 4] = -9.0
    found = measured(task_of("class", tuple("abcde")), output, values)
    true, named = values[found["known"]], output.argmax(axis=1)[found["known"]]
    assert set(named) - set(true) == {2}
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(true, named))
    assert found["f1_macro"] == pytest.approx(sklearn.f1_score(true, named, average="macro"))
    recalls = sklearn.recall_score(true, named, labels=sorted(set(true)), average="macro")
    assert found["balanced_accuracy"] == pytest.approx(recalls)
    assert found["confusion"].classes == tuple("abcde")
    assert np.array_equal(found["confusion"].counts, sklearn.confusion_matrix(true, named, labels=range(5)))


def test_of_too_many_classes_pairs_are_not_counted():
    names = tuple(map(str, range(MOST_COUNTED + 1)))
    values = RNG.choice([0, 7, MOST_COUNTED], size=COUNT)
    output = RNG.normal(size=(COUNT, len(names))) + 4 * np.eye(len(names))[values]
    task = task_of("class", names)
    found = measured(task, output, values)
    true, named = values[found["known"]], output.argmax(axis=1)[found["known"]]
    assert 0 < (true == named).sum() < len(true)
    assert found["confusion"] is None
    assert task.sum_count < 4 * len(names)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(true, named))
    assert found["f1_macro"] == pytest.approx(sklearn.f1_score(true, named, average="macro"))


def test_labels():
    values = (RNG.random((COUNT, 4)) < [0.1, 0.5, 0.9, 0.0]).astype(float)
    output = RNG.normal(size=(COUNT, 4)) + values
    output[:, 3] = -1.0  # a label that nothing has and nobody names
    found = measured(task_of("multilabel", tuple("abcd")), output, values)
    true, named = values[found["known"]], output[found["known"]] > 0
    assert found["exact"] == pytest.approx(sklearn.accuracy_score(true, named))
    assert found["f1"] == pytest.approx(sklearn.f1_score(true, named, average="micro"))
    assert found["f1_macro"] == pytest.approx(sklearn.f1_score(true, named, average="macro", zero_division=0))


def test_numbers():
    task = Task("t", TargetSpec(kind="regression", unit="eV"), 1.0, "mse", TargetStatistics(count=9, mean=1.0))
    values = RNG.normal(1.2, 2.0, COUNT)
    output = values + RNG.normal(0, 0.5, COUNT)
    found = measured(task, output - 1.0, values)  # the head adds the training mean; the deviation counts as 1
    true, predicted = values[found["known"]], output[found["known"]]
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(true, predicted))
    assert found["rmse"] == pytest.approx(sklearn.root_mean_squared_error(true, predicted))
    assert found["baseline_mae"] == pytest.approx(np.abs(true - 1.0).mean())
    assert found["r2"] == pytest.approx(1 - ((true - predicted) ** 2).sum() / ((true - 1.0) ** 2).sum())


def test_area_where_there_is_none():
    yes, no = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    assert auroc(np.arange(3.0), yes) is None
    assert auroc(np.arange(3.0), no) is None
    assert auroc(np.array([1.0, np.nan, 2.0]), np.array([True, False, False])) is None
    assert auroc(np.full(3, 7.0), np.array([True, False, False])) == 0.5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_area_is_the_share_of_pairs_in_the_right_order(samples):
    scores, positive = np.array([s for s, _ in samples], dtype=float), np.array([p for _, p in samples])
    pairs = list(product(scores[positive], scores[~positive]))
    if pairs:
        assert auroc(scores, positive) == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
        assert auroc(scores, positive) == pytest.approx(sklearn.roc_auc_score(positive, scores))
        order = np.argsort(-scores, kind="stable")
        assert auroc(scores[order], positive[order]) == auroc(scores, positive)
