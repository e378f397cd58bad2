"""`load_model`: a trained model from wherever it lies."""

import os
from pathlib import Path
from typing import Literal, get_args

import torch

from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import About
from matsci_hpc.inference.building import build
from matsci_hpc.inference.from_run import is_run, read_run
from matsci_hpc.inference.model_file import read_model
from matsci_hpc.inference.model_header import SUFFIX
from matsci_hpc.inference.trained import TrainedModel
from matsci_hpc.parallel.device import take_device
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.training.precision import Precision

Device = Literal["auto", "cpu", "cuda", "xpu"]
Numbers = Literal["float32", "float64", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Numbers)


def load_model(
    path: str | Path,
    *,
    checkpoint: str | int | None = None,
    device: Device = "auto",
    precision: Numbers | None = None,
    trust_module: bool = False,
) -> TrainedModel:
    """A trained model.

    Args:
        path: an exported file, the folder of an export, of a run, or of a checkpoint of one.
        checkpoint: of a run: `best`, `newest`, or a step such as 2000 or step-002000; by default the best, else the
            newest. Averaged parameters are taken where the run kept them.
        device: that it computes on.
        precision: that it computes in; by default that of its training.
        trust_module: whether an encoder that is a module from outside this package may be imported, which runs its
            code.

    Raises:
        UserInputError: there is no usable model.
        MachineError: the device cannot be used.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UserInputError(f"precision {precision!r}: a model computes in {', '.join(PRECISIONS)}")
    path = Path(path)
    about, tensors, where = find_model(path, None if checkpoint is None else str(checkpoint))
    module = build(about, tensors, where, trust_module=trust_module)
    on = take_device(device, discover(os.environ))
    chosen = Precision(precision or about.precision, on.type)
    return TrainedModel(module.to(device=on, dtype=chosen.dtype), about, chosen)


def find_model(path: Path, checkpoint: str | None = None) -> tuple[About, dict[str, torch.Tensor], str]:
    """What is known of a model, its numbers, and where they lie, for messages; arguments and errors as above."""
    if is_run(path):
        found = read_run(path, checkpoint)
        return found.about, found.tensors, str(found.checkpoint)
    if checkpoint is not None:
        raise UserInputError(f"{path}: is no run, so it has no checkpoint {checkpoint!r} to choose")
    file = path
    if path.is_dir():
        files = sorted(path.glob(f"*{SUFFIX}"))
        if len(files) != 1:
            held = f"holds {len(files)} files *{SUFFIX}; name one of them" if files else "holds no run and no model"
            raise UserInputError(f"{path}: {held}")
        file = files[0]
    return *read_model(file), str(file)
