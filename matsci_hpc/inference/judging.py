"""Metrics of a trained model on a split of prepared data sets, by all ranks together, each sample once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.inference.about import About
from matsci_hpc.inference.opening import Device, find_model, load_model
from matsci_hpc.inference.trained import TrainedModel
from matsci_hpc.loading.collection import Collection
from matsci_hpc.parallel.communicator import Communicator, open_communicator
from matsci_hpc.parallel.device import take_device
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.together import on_every, on_first, until_the_end
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.evaluation import evaluate
from matsci_hpc.training.setup import limit_threads
from matsci_hpc.training.tasks import Task


def judge(
    path: Path, folders: Sequence[Path], split: str, *, checkpoint: str | None, device: str, trust_module: bool
) -> tuple[dict[str, Any], bool]:
    """Evaluate as one of the ranks that the launcher started.

    Args:
        path: of the model.
        folders: of the data sets.
        split: of all of them.
        checkpoint: as in `load_model`.
        device: likewise.
        trust_module: likewise.

    Returns:
        What `evaluate` gives, with `model`, `step`, `weights`, `data` and `split`; and whether this is the first rank.

    Raises:
        UserInputError: model and data do not fit each other.
        MachineError: ranks cannot find or have lost each other, or something can no longer be read.
    """
    limit_threads()
    refusal: MatsciError | None = None
    on = "cpu"
    try:
        on = take_device(device, discover(os.environ)).type
    except MatsciError as error:
        refusal = error
    parallel = Parallel()
    comm = open_communicator(parallel, parallel.startup_timeout_s, on, refusal)
    with until_the_end(comm):
        where = on_first(comm, lambda: find_model(path, checkpoint)[2])  # a run may save another one meanwhile
        model = on_every(comm, lambda: load_model(where, device=cast("Device", on), trust_module=trust_module))
        collection = on_every(comm, lambda: Collection(list(folders)))
        return _judged(model, collection, folders, split, comm), comm.rank == 0


def tasks_for(about: About, collection: Collection) -> list[Task]:
    """The targets of a model that data sets hold, too, as they were learned.

    Raises:
        UserInputError: there is none, or one means something else there.
    """
    if collection.cutoff != about.learned.cutoff_angstrom:
        raise UserInputError(
            f"the data have edges up to {collection.cutoff:g} angstrom and the model was trained with "
            f"{about.learned.cutoff_angstrom:g}; prepare them with neighbors.cutoff={about.learned.cutoff_angstrom:g}"
        )
    tasks = [task for task in about.learned.tasks if task.column in collection.targets]
    for task in tasks:
        there = collection.targets[task.column]
        if task.derivation is None and there != task.spec:
            raise UserInputError(
                f"target {task.name} means something else in the data than to the model: "
                f"{'; '.join(_unlike(there, task.spec))}; prepare the data with the same kind, unit and classes"
            )
    if not tasks:
        learned = ", ".join(about.learned.targets) or "none"
        raise UserInputError(
            f"the data hold no target of the model: it has {learned}, they have "
            f"{', '.join(sorted(collection.targets)) or 'none'}"
        )
    return tasks


def _unlike(there: TargetSpec, model: TargetSpec) -> Iterator[str]:
    """What differs between a target of the data and that of the model, in words."""
    shown = ("kind", "unit", "classes", "shape", "per_atom")
    for name in shown:
        data, own = getattr(there, name), getattr(model, name)
        if data != own:
            words = [", ".join(map(str, each)) if isinstance(each, tuple) else each for each in (data, own)]
            yield f"{name} is {words[0] or 'none'} in the data and {words[1] or 'none'} in the model"


def _judged(
    model: TrainedModel, collection: Collection, folders: Sequence[Path], split: str, comm: Communicator
) -> dict[str, Any]:
    if not model.targets:
        raise UserInputError("this model is an encoder alone, without heads to evaluate; export it with heads")
    tasks = tasks_for(model.about, collection)
    samples = collection.in_split(split)
    comm.activity.at("evaluation", model.about.origin.step)
    found = evaluate(model.module, tasks, collection, samples, comm, model.precision)
    model.module.eval()
    if found is None:  # nobody has asked for a stop
        raise AssertionError("an evaluation ended without a result")
    origin = model.about.origin
    about = {"model": origin.run, "step": origin.step, "weights": origin.weights}
    return about | {"data": [each.name for each in folders], "split": split} | found
