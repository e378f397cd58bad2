"""The optimiser and the learning rate of a step."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from matsci_hpc.config.train import Optimizer, Schedule


def _unguarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method inside of its decorators."""
    inner: Callable[..., Any] = inspect.unwrap(method)
    return inner


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW without the guard against being compiled, which imports the compiler.

    That import is a third of what a rank needs to start and 70 MB of its memory, and reads a thousand files at once
    with all other ranks. Nothing here compiles the optimiser.
    """

    add_param_group = _unguarded(torch.optim.AdamW.add_param_group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step by the gradients that the parameters hold."""
        _unguarded(torch.optim.AdamW.step)(self, closure)


def build_optimizer(config: Optimizer, model: nn.Module, factors: Mapping[str, float] | None = None) -> AdamW:
    """AdamW whose weight decay leaves biases, norms and other vectors alone.

    In one pass over the parameters where PyTorch has that for their device; the state is the same either way.

    Args:
        config: of the optimiser.
        model: whose parameters it moves.
        factors: of the learning rate, by the name of the parameter; 1 where there is none.
    """
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    factor_of = {name: (factors or {}).get(name, 1.0) for name, _ in named}
    groups: list[dict[str, Any]] = []
    for factor in sorted(set(factor_of.values()), reverse=True):
        alike = [each for name, each in named if factor_of[name] == factor]
        common = {"lr": factor * config.lr, "lr_factor": factor}
        matrices, vectors = ([each for each in alike if (each.ndim >= 2) is is_matrix] for is_matrix in (True, False))
        groups.append({"params": matrices, "weight_decay": config.weight_decay, **common})
        groups.append({"params": vectors, "weight_decay": 0.0, **common})
    fused = all(each.device.type in {"cpu", "cuda", "xpu"} and each.is_floating_point() for _, each in named)
    return AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=fused,
        foreach=not fused,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every parameter learn at its multiple of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr_factor"] * rate


def learning_rate(
    step: int, steps: int, peak: float, schedule: Schedule, batch_graphs: int, plateaus: int = 0
) -> float:
    """Learning rate of a step: a pure function, so that nothing has to be saved for a resumed run.

    Args:
        step: from 0.
        steps: of the whole run.
        peak: at `base_batch`.
        schedule: scaling with the batch, warm-up and decay.
        batch_graphs: global batch.
        plateaus: how often held-out losses have stopped falling.
    """
    ratio = batch_graphs / schedule.base_batch
    peak *= {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[schedule.scaling]
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.decay == "constant":
        return peak
    if schedule.decay == "plateau":
        return peak * float(max(schedule.plateau_factor**plateaus, schedule.final_fraction))
    decaying = max(1, steps - schedule.warmup_steps - 1)
    done = min(1.0, (step - schedule.warmup_steps) / decaying)
    floor = schedule.final_fraction
    if schedule.decay == "exponential":
        return peak * float(floor**done)
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
