"""The evaluation of a split that had no say in the run, once all steps are done: what a result is reported by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.together import on_every, on_first
from matsci_hpc.training.checkpoint import (
    DamagedCheckpointError,
    checkpoint_name,
    saved_average,
    verify_checkpoint,
)
from matsci_hpc.training.evaluation import evaluate
from matsci_hpc.training.setup import Run


def evaluate_final(run: Run, stop_requested: Callable[[], bool]) -> dict[str, Any] | None:
    """Metrics of `evaluate.final_split` by the parameters that the config chooses; collective.

    Args:
        run: whose checkpoints are all on disk.
        stop_requested: whether this rank was asked to stop.

    Returns:
        As of `evaluate`, with the step whose parameters were used; None if any rank was asked to stop.

    Raises:
        MachineError: the checkpoint of the best step cannot be read.
    """
    config, state = run.config.evaluate, run.state
    step = state.step
    if config.final_weights == "best" and state.best_step is not None:
        step = state.best_step
    own = run.average.in_place() if run.average is not None else nullcontext()
    with own if step == state.step else _parameters_of(run, step):
        result = evaluate(run.model, run.tasks, run.collection, run.final, run.comm, run.precision, stop_requested)
    if result is None:
        return None
    return (
        result
        | {"chosen": config.final_weights, "weights_step": step}
        | ({"weights": "average"} if run.average is not None else {})
    )


@contextmanager
def _parameters_of(run: Run, step: int) -> Iterator[None]:
    """Let the model have the parameters of a checkpoint of its run; collective."""
    path = run.folder.checkpoints / checkpoint_name(step)
    on_first(run.comm, lambda: _verified(path, run.comm.activity.tick))
    saved = on_every(run.comm, lambda: _read(path, averaged=run.average is not None))
    tensors = run.model.state_dict()
    own = {name: each.detach().clone() for name, each in tensors.items()}
    try:
        _put(run.model, saved)
        yield
    finally:
        _put(run.model, own)


def _verified(path: Path, progress: Callable[[], None]) -> None:
    try:
        verify_checkpoint(path, progress)
    except DamagedCheckpointError as fault:
        raise _unreadable(path, fault) from None


def _read(path: Path, *, averaged: bool) -> dict[str, Tensor]:
    """Parameters and buffers; averaged ones where the run keeps them."""
    try:
        return (saved_average(path) if averaged else {}) or load_file(path / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _put(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        model.load_state_dict(tensors)


def _unreadable(path: Path, error: Exception) -> MachineError:
    return MachineError(
        f"{path}: the best parameters of the run cannot be read: {error}; the same command tries again, with "
        "evaluate.final_weights=last it takes those of the last step"
    )
