"""What a rank needs before its first step: threads, data, model, optimiser, and the checkpoint to go on from."""

import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.config.loading import dump_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.generated import GeneratedData
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.models.registry import Model, build_model
from matsci_hpc.parallel.communicator import Communicator
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.together import on_every, on_first
from matsci_hpc.training.checkpoint import load_checkpoint, newest_usable, saved_average, saved_course
from matsci_hpc.training.course import Course
from matsci_hpc.training.fine_tuning import begin, refuse_useless_parts
from matsci_hpc.training.freezing import Freezing
from matsci_hpc.training.layer_rates import rate_factors
from matsci_hpc.training.learned_from import read_learned_from
from matsci_hpc.training.optimization import build_optimizer
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.run_folder import RunFolder
from matsci_hpc.training.run_state import RunState
from matsci_hpc.training.tasks import Task, build_tasks
from matsci_hpc.training.weight_average import WeightAverage


@dataclass(slots=True)
class Run:
    """Everything a rank trains with.

    The parameters that are trained are those of the last step, until a stepper begins with its own. `earlier_elements`
    are atomic numbers that the encoder had learned before the run began with it; `taken_heads` are targets whose heads
    this life took from another run, with their scaling.
    """

    config: TrainConfig
    config_text: str
    folder: RunFolder
    comm: Communicator
    collection: Collection
    held_out: NDArray[np.int64]
    final: NDArray[np.int64]
    tasks: list[Task]
    model: Model
    optimizer: torch.optim.AdamW
    precision: Precision
    device: torch.device
    state: RunState
    course: Course
    average: WeightAverage | None
    freezing: Freezing
    earlier_elements: list[int] | None = None
    taken_heads: list[str] = field(default_factory=list)


def build_run(config: TrainConfig, collection: Collection, comm: Communicator, device: torch.device) -> Run:
    """Build the run from its seed.

    Args:
        config: of the run.
        collection: the data.
        comm: the ranks.
        device: that this rank computes on.

    Raises:
        UserInputError: targets or splits do not fit the data.
        MachineError: the model is to be compiled or prepared by IPEX, and cannot be.
    """
    precision = Precision(config.precision, device.type)
    held_out = _held_out(config, collection)
    tasks = build_tasks(config, collection)
    torch.manual_seed(config.seed)
    model = build_model(
        config.model,
        {task.name: task.spec for task in tasks},
        collection.cutoff,
        {task.name: task.scaling for task in tasks},
        config.gradients,
    ).to(device=device, dtype=precision.dtype)
    freezing = Freezing(model, config.fine_tune)
    refuse_useless_parts(config, model, freezing)
    if config.optimize == "compile":
        if config.model.backend != "own":
            raise UserInputError("optimize: compile needs model.backend: own; DGL's kernels cannot be compiled")
        from matsci_hpc.training.compiled import optimize_model

        few = collection.in_split(config.data.split, 2)[:2]
        phases = [partial(freezing.begin, step) for step in freezing.phases]
        optimize_model(model, model.encoder, lambda: precision.cast(checked_batch(collection, few)), precision, phases)
        freezing.thaw()
    optimizer = build_optimizer(config.optimizer, model, rate_factors(model, model.encoder, config.fine_tune))
    if config.optimize == "ipex":
        from matsci_hpc.training.ipex import prepare_with_ipex

        prepare_with_ipex(model, optimizer, precision)
    average = None if config.average.decay is None else WeightAverage(model, config.average.decay)
    freezing.begin(config.steps - 1)
    return Run(
        config=config,
        config_text=dump_config(config),
        folder=RunFolder(config.run_dir),
        comm=comm,
        collection=collection,
        held_out=held_out,
        final=_final(config, collection),
        tasks=tasks,
        model=model,
        optimizer=optimizer,
        precision=precision,
        device=device,
        state=RunState(data=[each.manifest.fingerprint for each in collection.datasets]),
        course=Course(),
        average=average,
        freezing=freezing,
    )


def limit_threads() -> None:
    """Share the cores of the node among its ranks, unless OMP_NUM_THREADS or the launcher's binding did."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    cores = len(os.sched_getaffinity(0))
    ranks_here = discover(os.environ).local_size or 1
    bound = cores < (os.cpu_count() or cores)
    torch.set_num_threads(cores if bound else max(1, cores // ranks_here))


def resume(run: Run) -> bool:
    """Go on from the newest usable checkpoint, if there is one, else begin, by `init_from` or anew; collective.

    Rank 0 chooses and all load, so that all start from the same step; then rank 0's parameters become everybody's,
    since processors of different kinds may round the first ones differently.

    Returns:
        Whether there was a checkpoint of this run.

    Raises:
        UserInputError: the checkpoint does not fit the model or the data, or `init_from` has none that does.
    """
    chosen = on_first(run.comm, lambda: _choose(run.folder.checkpoints))
    if chosen is not None:
        data = run.state.data
        run.state = on_every(run.comm, lambda: load_checkpoint(Path(chosen), run.model, run.optimizer))
        run.course.load(on_every(run.comm, lambda: saved_course(Path(chosen))))
        if run.average is not None:
            average = run.average
            on_every(run.comm, lambda: average.load(saved_average(Path(chosen))))
        if run.state.data != data:
            raise _other_data(chosen, data, run)
        if run.state.step > run.config.steps:
            raise UserInputError(
                f"steps: {run.config.steps:,}, but {run.config.run_dir} has taken {run.state.step:,}: set steps to "
                f"{run.state.step} to end it there, or choose another run_dir"
            )
        run.earlier_elements = read_learned_from(Path(chosen)).earlier_elements
    else:
        begin(run)
    with torch.no_grad():
        for parameter in run.model.parameters():
            run.comm.broadcast(parameter)
    if chosen is None and run.average is not None:
        run.average.load({})
    return chosen is not None


def _other_data(checkpoint: str, data: list[str], run: Run) -> UserInputError:
    """The error of a run whose config is the same and whose data are not; `data` are the fingerprints now."""
    before = run.state.data
    changed = [each for each, was, now in zip(run.collection.datasets, before, data, strict=False) if was != now]
    drawn = [each.name for each in changed if isinstance(each, GeneratedData)]
    if drawn:
        return UserInputError(
            f"{checkpoint}: was trained on other data: this version of the program draws other clouds than the one "
            f"that began the run ({', '.join(drawn)}); go on with that version, or use another run_dir"
        )
    return UserInputError(
        f"{checkpoint}: was trained on other data: the data sets were prepared anew since; use another run_dir"
    )


def _choose(checkpoints: Path) -> str | None:
    """The newest checkpoint that holds what was saved; damaged ones are said."""
    chosen, faults = newest_usable(checkpoints)
    instead = "falling back to the checkpoint before it" if chosen else "none is left, starting from the first step"
    for fault in faults:
        print(f"matsci-hpc: warning: {fault}; {instead}", file=sys.stderr, flush=True)
    return str(chosen) if chosen else None


def _final(config: TrainConfig, collection: Collection) -> NDArray[np.int64]:
    """Samples evaluated when all steps are done, none if the config wants none."""
    if config.evaluate.final_split is None:
        return np.empty(0, dtype=np.int64)
    try:
        return collection.in_split(config.evaluate.final_split)
    except UserInputError as error:
        raise UserInputError(f"evaluate.final_split: {error}; name one of these, or null for none") from None


def _held_out(config: TrainConfig, collection: Collection) -> NDArray[np.int64]:
    """Samples held out, none if the config wants none."""
    if config.data.held_out is None:
        return np.empty(0, dtype=np.int64)
    if config.data.held_out == config.data.split:
        raise UserInputError(
            f"data.held_out: {config.data.split!r} is trained on; name another split, or null for none"
        )
    try:
        return collection.in_split(config.data.held_out)
    except UserInputError as error:
        raise UserInputError(f"data.held_out: {error}; name one of these, or null to hold out nothing") from None
