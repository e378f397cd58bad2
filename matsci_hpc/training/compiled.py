"""`optimize: compile`: a model whose steps take less time, with the same numbers up to rounding.

An encoder that knows its hot parts compiles these (`compile_parts`); of any other, PyTorch compiles as much of the
forward pass as it can. Either way parameters keep their names, so that checkpoints go from one to the other.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.batch import Batch
from matsci_hpc.training.precision import Precision

SHAPES = 64
"""Versions of one function that the compiler keeps before it leaves the function as it is: one for each combination of
model, precision, and training or evaluation, none for a size."""


def optimize_model(
    model: nn.Module,
    encoder: nn.Module,
    sample: Callable[[], Batch],
    precision: Precision,
    phases: Sequence[Callable[[], object]] = (lambda: None,),
) -> None:
    """Compile an encoder in its place, and run the model on a sample, so that no step waits for the compiler.

    Args:
        model: calls the encoder; its gradients are forgotten.
        encoder: to compile.
        sample: makes a batch of a few samples, in the precision of the run.
        precision: of the run.
        phases: each lets the model train what it trains in one phase of the run, which the compiler has to know.

    Raises:
        MachineError: what the compiler needs is not there, or it fails.
    """
    require_compiler(precision.device)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)  # noqa: SLF001
    compile_parts = getattr(encoder, "compile_parts", None)
    if compile_parts is not None:
        compile_parts()
    else:
        encoder.compile(dynamic=True)
    try:
        for begin_phase in phases:
            begin_phase()
            _run_once(model, sample(), precision)
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:  # noqa: SLF001
        reason = " ".join(str(error).split())[:300]
        raise MachineError(
            f"optimize: compile: the model could not be compiled: {reason}; set optimize: none"
        ) from None


def require_compiler(device: str) -> None:
    """See to it that there is what PyTorch compiles with.

    Args:
        device: type of the device that is compiled for.

    Raises:
        MachineError: there is no C++ compiler, no Triton where a GPU needs it, or none of Python's headers.
    """
    if device != "cpu" and find_spec("triton") is None:
        raise MachineError(
            f"optimize: compile needs the package triton on {device}, which comes with torch's own builds for GPUs: "
            "install it, or set optimize: none"
        )
    name = os.environ.get("CXX") or "g++"
    if shutil.which(name) is None:
        raise MachineError(
            f"optimize: compile needs a C++ compiler, and there is no {name} on this node: load a compiler module, set "
            "CXX to the path of one, or set optimize: none"
        )
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        raise MachineError(
            f"optimize: compile needs the headers of Python, and {headers} has no Python.h: install them "
            "(python3-dev), take a Python that comes with them, or set optimize: none"
        )


def _run_once(model: nn.Module, batch: Batch, precision: Precision) -> None:
    """Forward and backward as in a step, and forward as in an evaluation."""
    with precision.autocast():
        outputs = model(batch)
    torch.stack([each.float().sum() for each in outputs.values()]).sum().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    with torch.no_grad(), precision.autocast():
        model(batch)
