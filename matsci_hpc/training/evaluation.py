"""Held-out metrics: each sample counts once, whatever the number of ranks."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.divide import evaluation_share
from matsci_hpc.loading.plan import COST
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.models.registry import Model
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.together import gather_rows
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import Task

BATCH_COST = 150_000.0
"""Predicted cost of an evaluation batch, in edges: large enough to be efficient, small enough for any memory."""
BATCHES_PER_LOOK = 8
"""Batches of a rank between two looks whether any rank was asked to stop."""


def evaluate(
    model: Model,
    tasks: list[Task],
    collection: Collection,
    samples: NDArray[np.int64],
    comm: Communicator,
    precision: Precision,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Metrics of a set of samples; collective.

    Args:
        model: in training mode before and after.
        tasks: targets.
        collection: the data.
        samples: their numbers.
        comm: the ranks that share them.
        precision: of the model.
        stop_requested: whether this rank was asked to stop.

    Returns:
        samples, loss (sum over targets by the weights of the config), metrics by target, per_class accuracies,
        confusion as of `Confusion.to_json`, time_taken_s; None if any rank was asked to stop meanwhile.
    """
    start_s = time.perf_counter()
    costs = COST.of(collection.atoms(samples), collection.edges(samples))
    sums = [torch.zeros(task.sum_count, dtype=torch.float64) for task in tasks]
    scores = [[torch.empty(0, 2, dtype=torch.float64)] for _ in tasks]
    model.eval()
    shares = evaluation_share(costs, comm.rank, comm.size, BATCH_COST)
    rounds = torch.tensor(len(shares))
    comm.all_reduce(rounds, "max")
    stopped = False
    with torch.no_grad():
        for number in range(int(rounds)):
            if number < len(shares):
                batch = precision.cast(checked_batch(collection, samples[shares[number]]))
                with precision.autocast():
                    outputs = model(batch)
                for i, task in enumerate(tasks):
                    output = precision.widen(outputs[task.name])
                    sums[i] += task.sums(model, output, batch).cpu()
                    found = task.scores(model, output, batch)
                    if found is not None:
                        scores[i].append(found.cpu())
            comm.activity.tick()
            if number % BATCHES_PER_LOOK == 0:
                asked = torch.tensor(float(stop_requested()))
                comm.all_reduce(asked, "max")
                stopped = bool(asked)
                if stopped:
                    break
    model.train()
    if stopped:
        return None
    flat = torch.cat(sums)
    comm.all_reduce(flat)
    metrics, per_class, confusion, loss = {}, {}, {}, 0.0
    parts = torch.split(flat, [task.sum_count for task in tasks])
    for task, part, own in zip(tasks, parts, scores, strict=True):
        of_all = gather_rows(comm, torch.cat(own)) if task.measure.scored else None
        metrics[task.name], by_class = task.metrics(part, of_all)
        if by_class:
            per_class[task.name] = by_class
        if (counted := task.confusion(part)) is not None:
            confusion[task.name] = counted.to_json()
        loss += task.weight * float(metrics[task.name].get("loss") or 0.0)
    return {
        "samples": len(samples),
        "time_taken_s": time.perf_counter() - start_s,
        "loss": loss,
        "metrics": metrics,
        "per_class": per_class,
        "confusion": confusion,
    }
