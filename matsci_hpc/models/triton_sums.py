"""The kernels behind `device_sums.triton`.

A program adds up the rows of one segment (or of a few segments of equally many rows) and a block of their columns, in
registers and always in the same order. What it reads lies scattered, but each row of `values` is read whole.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Numbers that a program holds at once, about; more only fill its registers."""
WIDEST = 128
"""Most columns of a program."""


@triton.jit
def _sum_segments(values, column, pointer, out, width, K: tl.constexpr, F: tl.constexpr, ACC: tl.constexpr):
    """Row r of `out` [R, width] is the sum of `values[column[pointer[r]:pointer[r + 1]]]`."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * F + tl.arange(0, F)
    inside = f < width
    first, last = tl.load(pointer + row), tl.load(pointer + row + 1)
    entry = tl.arange(0, K)
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
    values, column, out, rows, width, PER: tl.constexpr, R: tl.constexpr, F: tl.constexpr, ACC: tl.constexpr
):
    """The same where every row of `out` has PER entries; R rows in a program."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    f = tl.program_id(1) * F + tl.arange(0, F)
    exists = row < rows
    mask = exists[:, None] & (f < width)[None, :]
    total = tl.zeros((R, F), dtype=ACC)
    for entry in tl.static_range(PER):
        at = tl.load(column + row * PER + entry, mask=exists, other=0).to(tl.int64)
        total += tl.load(values + at[:, None] * width + f[None, :], mask=mask, other=0.0).to(ACC)
    tl.store(out + row[:, None] * width + f[None, :], total, mask=mask)


def sum_rows(values: Tensor, column: Tensor, pointer: Tensor, per_row: int | None) -> Tensor:
    """As `device_sums.Kernel` says."""
    rows, width = len(pointer) - 1, values.shape[1]
    values = values.contiguous()
    out = torch.empty((rows, width), dtype=values.dtype, device=values.device)
    if out.numel() == 0:
        return out
    block = min(WIDEST, triton.next_power_of_2(width))
    kind = tl.float64 if values.dtype == torch.float64 else tl.float32
    blocks = triton.cdiv(width, block)
    if per_row is None:
        entries = max(1, min(64, BLOCK // block))
        _sum_segments[(rows, blocks)](values, column, pointer, out, width, K=entries, F=block, ACC=kind)
    else:
        height = max(1, min(128, BLOCK // block))
        grid = (triton.cdiv(rows, height), blocks)
        _sum_equal[grid](values, column, out, rows, width, PER=per_row, R=height, F=block, ACC=kind)
    return out
