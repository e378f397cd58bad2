"""The kernels behind `device_sums.triton`.

A program adds up the rows of one segment (or of a few segments of equally many rows) and a block of their columns, in
registers and always in the same order. What it reads lies scattered, but each row of `values` is read whole.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

BLOCK = 2048
"""Numbers that a program holds at once, about; more only fill its registers."""
WIDEST = 128
"""Most columns of a program."""


@triton.jit
def _sum_segments(values, column, pointer, out, width, K: tl.constexpr, F: tl.constexpr, DOUBLE: tl.constexpr):
    """Row r of `out` [R, width] is the sum of `values[column[pointer[r]:pointer[r + 1]]]`."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * F + tl.arange(0, F)
    inside = f < width
    first, last = tl.load(pointer + row), tl.load(pointer + row + 1)
    entry = tl.arange(0, K)
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    total = tl.zeros((F,), dtype=ACC)
    for start in range(first, last, K):
        here = start + entry
        exists = here < last
        at = tl.load(column + here, mask=exists, other=0).to(tl.int64)
        mask = exists[:, None] & inside[None, :]
        tile = tl.load(values + at[:, None] * width + f[None, :], mask=mask, other=0.0)
        total += tl.sum(tile.to(ACC), axis=0)
    tl.store(out + row * width + f, total, mask=inside)


@triton.jit
def _sum_equal(
    values, column, out, rows, width, PER: tl.constexpr, R: tl.constexpr, F: tl.constexpr, DOUBLE: tl.constexpr
):
    """The same where every row of `out` has PER entries; R rows in a program."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    f = tl.program_id(1) * F + tl.arange(0, F)
    exists = row < rows
    mask = exists[:, None] & (f < width)[None, :]
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    total = tl.zeros((R, F), dtype=ACC)
    for entry in tl.static_range(PER):
        at = tl.load(column + row * PER + entry, mask=exists, other=0).to(tl.int64)
        total += tl.load(values + at[:, None] * width + f[None, :], mask=mask, other=0.0).to(ACC)
    tl.store(out + row[:, None] * width + f[None, :], total, mask=mask)


def sum_rows(
    values: Tensor,
    column: Tensor,
    pointer: Tensor,
    per_row: int | None,
    launcher: Callable[[Any], Any] = lambda kernel: kernel,
) -> Tensor:
    """As `device_sums.Kernel` says.

    Args:
        values: float [N, F].
        column: int [K].
        pointer: int [R + 1].
        per_row: entries of each row, None where rows differ.
        launcher: makes of a kernel what starts it.
    """
    rows, width = pointer.shape[0] - 1, int(values.shape[1])
    values = values.contiguous()
    out = torch.empty((rows, width), dtype=values.dtype, device=values.device)
    if width == 0 or (not torch.compiler.is_compiling() and rows == 0):
        return out
    block = min(WIDEST, 1 << (width - 1).bit_length())
    blocks = -(-width // block)
    double = values.dtype == torch.float64
    if per_row is None:
        entries = max(1, min(64, BLOCK // block))
        launcher(_sum_segments)[(rows, blocks)](values, column, pointer, out, width, K=entries, F=block, DOUBLE=double)
    else:
        height = max(1, min(128, BLOCK // block))
        grid = ((rows + height - 1) // height, blocks)
        launcher(_sum_equal)[grid](values, column, out, rows, width, PER=per_row, R=height, F=block, DOUBLE=double)
    return out


@triton_op("matsci_hpc::product_by_triton", mutates_args=())
def product_operator(
    values: Tensor,
    column: Tensor,
    pointer: Tensor,
    transpose_column: Tensor,
    transpose_pointer: Tensor,
    per_row: int,
    transpose_per_row: int,
) -> Tensor:
    """`segment.product` for the compiler, which starts the kernels without Python; a number per row of 0 is none."""
    del transpose_column, transpose_pointer, transpose_per_row
    return sum_rows(values, column, pointer, per_row or None, wrap_triton)


def _keep_matrix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[1:5])
    ctx.per_row, ctx.transpose_per_row = inputs[5:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    column, pointer, transpose_column, transpose_pointer = ctx.saved_tensors
    result: Tensor = product_operator(
        gradient, transpose_column, transpose_pointer, column, pointer, ctx.transpose_per_row, ctx.per_row
    )
    return result, None, None, None, None, None, None


product_operator.register_autograd(_backward, setup_context=_keep_matrix)
