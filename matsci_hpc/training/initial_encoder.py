"""Fine-tuning: the encoder of another run as the start of this one.

Which checkpoint that is, and its parameters: their average where that run kept one, for it is what was evaluated; or
the file that `matsci-hpc export` made of one. What else is taken, and whether all of it fits this run, is up to
`fine_tuning.py`.
"""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from matsci_hpc.config.model import Model as ModelSection
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.inference.model_file import read_model
from matsci_hpc.models.registry import Model
from matsci_hpc.training.checkpoint import (
    CHECKSUMS,
    DamagedCheckpointError,
    checkpoint_name,
    is_checkpoint_name,
    newest_usable,
    saved_state,
    verify_checkpoint,
)
from matsci_hpc.training.encoder_parts import ENCODER, full_name, is_in
from matsci_hpc.training.encoder_shape import refuse_other_shape, refuse_unlike

MODEL, AVERAGE = "model.safetensors", "average.safetensors"


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint that an encoder comes from.

    Attributes:
        path: of the checkpoint, or of the file that was exported of one, absolute.
        step: of the run that saved it.
        weights: `model`, or `average` where the checkpoint holds one.
        checksum: XXH3-128 of the file that holds them.
    """

    path: str
    step: int
    weights: str
    checksum: str

    def to_json(self) -> dict[str, Any]:
        """As the run's provenance keeps it."""
        return asdict(self)


def choose_origin(init_from: Path, model: ModelSection) -> Origin:
    """Find and verify the checkpoint to start from; on one rank.

    Args:
        init_from: a checkpoint, an exported file, or a run: its best checkpoint, else its newest one that is whole.
        model: of the run that starts.

    Raises:
        UserInputError: there is no usable one, or its encoder is of another shape.
    """
    if init_from.is_file():
        return _exported(init_from, model)
    if (init_from / "checkpoints").is_dir():
        path = _best_or_newest(init_from)
    elif is_checkpoint_name(init_from.name) and init_from.is_dir():
        path = init_from
    else:
        what = "there is no such folder" if not init_from.exists() else "this is neither a run nor a checkpoint of one"
        raise UserInputError(
            f"init_from: {init_from}: {what}; name the run_dir of a run that has saved a checkpoint, one of its "
            "checkpoints/step-NNNNNN, or a file that `matsci-hpc export` made"
        )
    try:
        state = verify_checkpoint(path)
        file = _weights(path)
        checksum = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))[file]
    except DamagedCheckpointError as fault:
        raise UserInputError(
            f"init_from: damaged checkpoint: {fault}; name another checkpoint or the whole run"
        ) from None
    except OSError as error:
        raise _vanished(path, error) from None
    refuse_other_shape(path, model)
    return Origin(str(path.absolute()), state.step, file.partition(".")[0], checksum)


def _exported(file: Path, model: ModelSection) -> Origin:
    try:
        about, _ = read_model(file)
    except UserInputError as error:
        raise UserInputError(f"init_from: {error}") from None
    refuse_unlike(file, about.model, model)
    return Origin(str(file.absolute()), about.origin.step, about.origin.weights, about.origin.checksum)


def load_encoder(path: Path, model: Model, reinitialize: Collection[str] = ()) -> None:
    """Put the encoder of a verified checkpoint into a model of the same encoder.

    Args:
        path: of the checkpoint.
        model: whose encoder is to be that one.
        reinitialize: parts of it that stay as they are in the model.

    Raises:
        UserInputError: parameters are missing or of another shape.
        MachineError: the checkpoint can no longer be read.
    """
    saved = saved_tensors(path)
    refuse_other_parameters(path, model, {name: tuple(value.shape) for name, value in saved.items()})
    with torch.no_grad():
        for name, parameter in taken_parameters(model, reinitialize).items():
            parameter.copy_(saved[name])


def taken_parameters(model: Model, reinitialize: Collection[str]) -> dict[str, nn.Parameter]:
    """Those of an encoder, by their names in the model, that are taken over from another run.

    Raises:
        UserInputError: the encoder has no part of such a name, or nothing would be taken.
    """
    named = dict(model.encoder.named_parameters(prefix=ENCODER))
    parts = [full_name(part, named, "fine_tune.reinitialize") for part in reinitialize]
    taken = {name: each for name, each in named.items() if not any(is_in(name, part) for part in parts)}
    if named and not taken:
        raise UserInputError(
            "fine_tune.reinitialize: nothing of the encoder would be taken over; leave out init_from instead"
        )
    return taken


def refuse_other_parameters(path: Path, model: Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """See to it that a checkpoint holds every parameter of a model's encoder.

    Args:
        path: of the checkpoint.
        model: of the run that starts.
        shapes: of all that the checkpoint holds.

    Raises:
        UserInputError: parameters are missing or of another shape.
    """
    for name, parameter in model.encoder.named_parameters():
        shape = shapes.get(f"encoder.{name}")
        if shape != tuple(parameter.shape):
            found = "missing" if shape is None else f"of shape {list(shape)}"
            raise UserInputError(
                f"init_from: {path}: encoder.{name} is {found}, and of shape {list(parameter.shape)} here; it was "
                "saved by another release of matsci-hpc: train that run again with this one"
            )


def saved_tensors(path: Path, file: str | None = None) -> dict[str, Tensor]:
    """All tensors in a file of a verified checkpoint; by default in that which the encoder is taken from.

    An exported file has no others.

    Raises:
        MachineError: the checkpoint can no longer be read.
    """
    if path.is_file():
        return {} if file else _exported_tensors(path)
    try:
        return load_file(path / (file or _weights(path)))
    except (OSError, SafetensorError) as error:
        raise _vanished(path, error) from None


def saved_shapes(path: Path, file: str | None = None) -> dict[str, tuple[int, ...]]:
    """Their shapes, read without the tensors; arguments and errors as of `saved_tensors`."""
    if path.is_file():
        return {name: tuple(each.shape) for name, each in saved_tensors(path, file).items()}
    try:
        with safe_open(path / (file or _weights(path)), framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _vanished(path, error) from None


def _exported_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_model(path)[1]
    except UserInputError as error:
        raise _vanished(path, error) from None


def _weights(path: Path) -> str:
    """The file of a verified checkpoint that the encoder is taken from."""
    return AVERAGE if AVERAGE in json.loads((path / CHECKSUMS).read_text(encoding="utf-8")) else MODEL


def _best_or_newest(run: Path) -> Path:
    folder = run / "checkpoints"
    newest, faults = newest_usable(folder)
    if newest is None:
        why = f" ({faults[0]})" if faults else ""
        raise UserInputError(
            f"init_from: {run} holds no usable checkpoint{why}; train it until it has saved one, or name another run"
        )
    best_step = saved_state(newest).best_step
    best = folder / checkpoint_name(best_step) if best_step is not None else newest
    if best != newest:
        try:
            verify_checkpoint(best)
        except DamagedCheckpointError as fault:
            faults.append(str(fault))
            best = newest
    for each in faults:
        print(f"matsci-hpc: warning: init_from: {each}; taking {best.name}", file=sys.stderr, flush=True)
    return best


def _vanished(path: Path, error: Exception) -> MachineError:
    return MachineError(f"init_from: {path}: can no longer be read: {error}; start again")
