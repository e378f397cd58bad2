"""How many training samples are yes of targets that follow from others, which no manifest holds.

Rank 0 reads their sources once in each life of a run and tells the others.
"""

import sys
from dataclasses import replace

import numpy as np

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.labels import target_values
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.together import on_first
from matsci_hpc.training.tasks import Task

SAMPLES = 2**20
"""Read at once."""


def with_labels_counted(
    tasks: list[Task], config: TrainConfig, collection: Collection, comm: Communicator
) -> list[Task]:
    """The tasks, with the training samples that are yes where a target is derived; collective.

    Rank 0 warns of a target of which all training samples are of one class.

    Raises:
        MachineError: a shard cannot be read.
    """
    derived = [task for task in tasks if task.derivation is not None]
    if not derived:
        return tasks
    found: dict[str, int] = on_first(
        comm, lambda: {task.name: _training_yes(task, config.data.split, collection, comm) for task in derived}
    )
    if comm.rank == 0:
        for task in derived:
            if task.derivation and (what := task.derivation.of_one_class(found[task.name], task.statistics.count)):
                print(f"matsci-hpc: warning: targets.{task.name}: {what}", file=sys.stderr, flush=True)
    return [replace(task, training_yes=found.get(task.name)) for task in tasks]


def _training_yes(task: Task, split: str, collection: Collection, comm: Communicator) -> int:
    if task.derivation is None:
        raise AssertionError(f"{task.name} is not derived")
    samples = collection.in_split(split)
    carrying = samples[collection.present(task.column, samples)]
    found = 0
    for start in range(0, len(carrying), SAMPLES):
        values = target_values(collection, task.column, carrying[start : start + SAMPLES])
        found += int(np.count_nonzero(task.derivation.of_stored(values) > 0))
        comm.activity.tick()
    return found
