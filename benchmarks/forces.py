"""What forces cost: training steps on energies alone, with direct forces, and with forces as gradients of the energy.

    python benchmarks/forces.py [--seconds 40] [--precision float32|float64|bf16]

One thread, 32 crystals of 30 atoms with 60 neighbours each, every encoder with 3 layers of width 64; forward, backward
and AdamW on the squares of all outputs. All rows take turns within one process, so that they see the same state of the
machine; the median step of each is reported in core seconds, and its ratio to the step on energies alone.

- gradient: a force is -dE/dx, so a step takes derivatives of derivatives, by the operators of this package.
- gradient, plain torch: the same network with every gather and sum by `index_select` and `index_add_` and every product
  by PyTorch, as a model without operators of its own has it.
- evaluation: forces by gradients under `torch.no_grad()`, against energies alone.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from models import ENCODERS
from step import GRAPHS, KEEP, elapsed, synthetic_batch
from torch import Tensor
from torch.nn import functional

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models import linear, segment
from matsci_hpc.models.registry import Model, build_model
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.precision import Precision

CUTOFF = 6.0
ENERGY = {"energy": TargetSpec(kind="regression", unit="eV")}
BOTH = ENERGY | {"force": TargetSpec(kind="regression", unit="eV/angstrom", shape=(3,), per_atom=True)}
WAYS = {
    "energy": (ENERGY, {}),
    "direct": (BOTH, {}),
    "gradient": (BOTH, {"force": "energy"}),
}


def plain_product(values: Tensor, matrix: segment.Selection, transpose: segment.Selection) -> Tensor:
    """`segment.product` by PyTorch's own operators and their derivatives."""
    del transpose
    selected = values.index_select(0, matrix.column)
    if matrix.per_row == 1:
        return selected
    row = torch.repeat_interleave(matrix.pointer.diff(), output_size=len(matrix.column))
    return selected.new_zeros((matrix.rows, values.shape[1])).index_add_(0, row, selected)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within this, models use no operator of this package."""
    product, onednn, fused = segment.product, linear._ONEDNN, linear._SiluLinear.apply  # noqa: SLF001
    segment.product, linear._ONEDNN = plain_product, False  # noqa: SLF001
    linear._SiluLinear.apply = lambda x, *others: functional.linear(functional.silu(x), *others)  # noqa: SLF001
    try:
        yield
    finally:
        segment.product, linear._ONEDNN, linear._SiluLinear.apply = product, onednn, fused  # noqa: SLF001


def build(name: str, way: str) -> Model:
    """A model of one encoder for one way to forces."""
    specs, gradients = WAYS[way]
    torch.manual_seed(0)
    return build_model(ENCODERS[name](envelope=True), specs, CUTOFF, {}, gradients)


def training_step(model: Model, batch: Batch, precision: Precision) -> Callable[[], None]:
    """One optimiser step, as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        with precision.autocast():
            outputs = model(batch)
        torch.stack([precision.widen(each).square().mean() for each in outputs.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_plain_torch(step: Callable[[], None]) -> Callable[[], None]:
    """The same step without operators of this package."""

    def plain() -> None:
        with plain_torch():
            step()

    return plain


def evaluation(model: Model, batch: Batch, precision: Precision) -> Callable[[], None]:
    """Predictions alone, as a function."""

    def predict() -> None:
        with torch.no_grad(), precision.autocast():
            model(batch)

    return predict


def measure(seconds: float, precision: Precision) -> None:
    """Print the table."""
    batch = precision.cast(synthetic_batch("crystal"))
    calls: dict[tuple[str, str], Callable[[], None]] = {}
    for name in ENCODERS:
        models = {way: build(name, way).to(precision.dtype) for way in WAYS}
        for way, model in models.items():
            calls[name, way] = training_step(model, batch, precision)
        again = build(name, "gradient").to(precision.dtype)
        calls[name, "gradient, plain torch"] = in_plain_torch(training_step(again, batch, precision))
        calls[name, "evaluation: energy"] = evaluation(models["energy"], batch, precision)
        calls[name, "evaluation: gradient"] = evaluation(models["gradient"], batch, precision)
    for call in calls.values():
        call()
    times: dict[tuple[str, str], list[float]] = {each: [] for each in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for each, call in calls.items():
            times[each].append(elapsed(call))
    rounds = len(next(iter(times.values())))
    print(f"{GRAPHS} graphs, {batch.atoms} atoms, {batch.edges} edges, {precision.name}, {rounds} rounds")
    print(f"  {'encoder':8} {'way':22} {'core ms':>8} {'x energy':>9}")
    for (name, way), taken in times.items():
        base = "evaluation: energy" if way.startswith("evaluation") else "energy"
        ratio = median(taken) / median(times[name, base])
        print(f"  {name:8} {way:22} {1e3 * median(taken):8.1f} {ratio:9.2f}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--precision", choices=["float32", "float64", "bf16"], default="float32")
    options = parser.parse_args()
    if not KEEP.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP, **os.environ})  # noqa: S606
    torch.set_num_threads(1)
    measure(options.seconds, Precision(options.precision))


if __name__ == "__main__":
    main()
