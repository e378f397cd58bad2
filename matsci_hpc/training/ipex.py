"""`optimize: ipex`: steps with Intel's extension for PyTorch, which was given up in 2026; 2.8.0 is the last one.

The extension replaces operators of torch when it is imported, above all those of bf16 autocast. `ipex.optimize` then
prepares convolutions and LSTMs, which modules of a user may have; for AdamW on a processor it has nothing. Weights stay
as they are: in the blocked form that it can give them ("prepacked") they have other shapes and their layers other
parameters, so that checkpoints, sums over ranks and weight decay would no longer fit.
"""

import faulthandler
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import nn

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.processor import this_processor
from matsci_hpc.training.precision import Precision
from matsci_hpc.versions import installed, same_series

PACKAGE = "intel-extension-for-pytorch"
MODULE = "intel_extension_for_pytorch"
INSTEAD = "set optimize: compile or none"


def load_ipex(device: str) -> None:
    """Import the extension, before ranks meet and threads begin.

    Args:
        device: type of the device that the run computes on.

    Raises:
        UserInputError: the extension is not for such a device.
        MachineError: it is not installed, does not go with this torch or this processor, or cannot be loaded.
    """
    if device not in {"cpu", "xpu"}:
        raise UserInputError(f"optimize: ipex is for processors and GPUs of Intel, not for {device}; {INSTEAD}")
    reason = why_no_ipex(torch.__version__, this_processor().flags)
    if reason is not None:
        raise MachineError(f"optimize: ipex cannot be used here: {reason}; {INSTEAD}")
    # It writes some lines about itself, on every rank.
    with _stderr_kept() as kept:
        try:
            import_module(MODULE)
        except (ImportError, OSError, AttributeError, SystemExit) as error:
            told = " ".join(f"{error} {kept()}".split())[:300]
            raise MachineError(
                f"optimize: ipex cannot be used here: {PACKAGE} does not load: {told}; {INSTEAD}"
            ) from None
    logging.getLogger("IPEX").setLevel(logging.ERROR)
    # It replaces torch.embedding_bag, our sums over edges, and passes such calls on to torch's own.
    warnings.filterwarnings("ignore", message=r"\[NotSupported\]IPEX embeddingbag")


def why_no_ipex(torch_version: str, processor_flags: AbstractSet[str]) -> str | None:
    """Why the extension cannot be used, as far as that can be told without importing it; None if it can.

    Under another torch than its own, or without AVX2, its import fails or ends the process.

    Args:
        torch_version: of torch.
        processor_flags: as in /proc/cpuinfo.
    """
    found = installed(PACKAGE)
    if found is None:
        return f"{PACKAGE} is not installed; 2.8.0, the last one, needs torch 2.8.0"
    reason = same_series(found, torch_version)
    if reason is not None:
        return f"{PACKAGE} {found}: {reason}"
    return None if "avx2" in processor_flags else f"{PACKAGE} needs a processor with AVX2"


def prepare_with_ipex(model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision) -> None:
    """Let the extension prepare a model in its place; names and shapes of parameters stay.

    Args:
        model: in training mode.
        optimizer: of its parameters, which stay in float32; the extension asks for it and leaves it as it is.
        precision: of the run; the extension has nothing for float64.

    Raises:
        MachineError: the extension refuses the model, or gives it other parameters.
    """
    if precision.name == "float64":
        return
    ipex: Any = import_module(MODULE)
    before = [(name, id(each), each.shape) for name, each in model.named_parameters()]
    try:
        ipex.optimize(model, optimizer=optimizer, inplace=True, weights_prepack=False)
    except (AssertionError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MachineError(f"optimize: ipex: {PACKAGE} refuses the model: {reason}; {INSTEAD}") from None
    if before != [(name, id(each), each.shape) for name, each in model.named_parameters()]:
        raise MachineError(f"optimize: ipex: {PACKAGE} gave the model other parameters; {INSTEAD}")


@contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """Keep back what this process writes to standard error, C++ included; give a function that tells it so far."""
    with tempfile.TemporaryFile() as file:
        own = os.dup(2)
        fatal = faulthandler.is_enabled()
        os.dup2(file.fileno(), 2)
        if fatal:  # what ends the process must still be seen
            faulthandler.enable(own)

        def told() -> str:
            return os.pread(file.fileno(), 10_000, 0).decode(errors="replace")

        try:
            yield told
        finally:
            os.dup2(own, 2)
            if fatal:
                faulthandler.enable()
            os.close(own)
