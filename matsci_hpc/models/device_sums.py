"""Products with a matrix of ones on a GPU: who carries them out, and which one is the fastest there.

| name | how | sums are the same from run to run |
|---|---|---|
| `scatter` | `index_add_`, whose additions come in any order | no |
| `segment` | rows are selected, then `torch.segment_reduce` | yes |
| `triton` | one kernel that reads each row where it lies and adds up in registers | yes |
"""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Name = Literal["scatter", "segment", "triton"]
Kernel = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]
"""From values [N, F], column int [K], pointer int [R + 1], entries per row (None where rows differ) to [R, F]."""
REPEATABLE: tuple[Name, ...] = ("triton", "segment")
"""In the order of preference where nothing was measured."""
_ROUNDS = 20
_NAME: list[Name] = []
"""The one in use, once it is decided."""


def scatter(values: Tensor, column: Tensor, pointer: Tensor, per_row: int | None) -> Tensor:
    """By `index_add_`, on any device."""
    del per_row
    row = torch.repeat_interleave(pointer.diff(), output_size=len(column))
    # Short types add up in float32, as the other kernels do by themselves.
    total = torch.promote_types(values.dtype, torch.float32)
    selected = values.index_select(0, column).to(total)
    summed = selected.new_zeros((len(pointer) - 1, values.shape[1])).index_add_(0, row, selected)
    return summed.to(values.dtype)


def segment(values: Tensor, column: Tensor, pointer: Tensor, per_row: int | None) -> Tensor:
    """By `torch.segment_reduce`; rows of equally many entries by a plain sum."""
    rows = len(pointer) - 1
    selected = values.index_select(0, column)
    if per_row is not None:
        return selected.view(rows, per_row, values.shape[1]).sum(1)
    total = torch.promote_types(values.dtype, torch.float32)
    if not selected.numel():
        return values.new_zeros((rows, values.shape[1]))
    summed = torch.segment_reduce(selected.to(total), "sum", offsets=pointer.long(), axis=0, initial=0.0)
    return summed.to(values.dtype)


def triton(values: Tensor, column: Tensor, pointer: Tensor, per_row: int | None) -> Tensor:
    """By a kernel of this package, compiled by Triton."""
    from matsci_hpc.models.triton_sums import sum_rows

    return sum_rows(values, column, pointer, per_row)


KERNELS: dict[Name, Kernel] = {"scatter": scatter, "segment": segment, "triton": triton}


def usable_kernels() -> tuple[Name, ...]:
    """Those that can run here."""
    return tuple(name for name in KERNELS if name != "triton" or find_spec("triton") is not None)


def use_kernel(name: Name) -> None:
    """Let all products of this process be carried out by one of them."""
    _NAME[:] = [name]


def kernel_in_use() -> Name:
    """The one in use."""
    if not _NAME:
        _NAME.append(next(name for name in REPEATABLE if name in usable_kernels()))
    return _NAME[0]


def sum_on_device(values: Tensor, column: Tensor, pointer: Tensor, per_row: int | None) -> Tensor:
    """The product by the kernel in use."""
    return KERNELS[kernel_in_use()](values, column, pointer, per_row)


def measure_kernels(pairs: list[tuple[Tensor, Tensor, Tensor, int | None]]) -> dict[Name, float]:
    """Seconds that each usable kernel takes for some products, the best of a few rounds; one that fails is left out.

    Args:
        pairs: arguments of the products, on a GPU.
    """
    found: dict[Name, float] = {}
    module = torch.get_device_module(pairs[0][0].device.type)
    for name in usable_kernels():
        try:
            for each in pairs:  # compiles
                KERNELS[name](*each)
        except Exception as error:  # noqa: BLE001 - a compiler may fail in any way, and there are others
            reason = " ".join(str(error).split())[:300]
            print(f"matsci-hpc: warning: kernels: {name} cannot be used: {reason}", file=sys.stderr, flush=True)
            continue
        times = []
        for _ in range(_ROUNDS):
            module.synchronize()
            start_s = time.perf_counter()
            for each in pairs:
                KERNELS[name](*each)
            module.synchronize()
            times.append(time.perf_counter() - start_s)
        found[name] = min(times)
    return found
