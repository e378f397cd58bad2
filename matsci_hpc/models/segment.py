"""Gathering from atoms to edges and summing edges back onto atoms, as exact adjoints of each other.

Both are products with a sparse matrix of zeros and ones: a gather takes one row of `values` per edge, a
segment sum takes all edges of an atom. The backward pass of a product with M is a product with M transposed,
so each is the derivative of the other at every order, and forces or Hessians need no further code.

On a CPU, `index_select` is the fastest gather and `embedding_bag` the fastest segment sum; PyTorch's own
derivatives of the two are slow scatters, which pairing them avoids. The order of summation is fixed, so
results are the same from run to run. On other devices `index_add_` does the sums. Indices are int32 or int64,
all of a batch alike; half the bytes are half the traffic.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Selection:
    """A sparse matrix of ones by rows: row r of the product sums `values[column[pointer[r]:pointer[r + 1]]]`.

    Attributes:
        column: int [N], row of `values` that each one selects.
        pointer: int [R + 1], first entry of each row.
        per_row: number of entries of every row where it is the same for all, else None.
    """

    column: Tensor
    pointer: Tensor
    per_row: int | None = None

    @property
    def rows(self) -> int:
        """Number of rows of the product."""
        return len(self.pointer) - 1

    def times(self, values: Tensor) -> Tensor:
        """The product with `values` [columns, F]: [R, F], without derivative."""
        if self.per_row == 1:
            return values.index_select(0, self.column)
        # Values of width zero have nothing to sum, and the kernel does not take them.
        if values.device.type != "cpu" or values.shape[1] == 0:
            return self.times_by_scatter(values)
        summed, *_ = torch.embedding_bag(
            values.contiguous(), self.column, self.pointer, mode=0, include_last_offset=True
        )
        return summed

    def times_by_scatter(self, values: Tensor) -> Tensor:
        """`times` on any device."""
        row = torch.repeat_interleave(self.pointer.diff(), output_size=len(self.column))
        # Short types add up in float32, as the CPU kernel does by itself.
        total = torch.promote_types(values.dtype, torch.float32)
        selected = values.index_select(0, self.column).to(total)
        summed = selected.new_zeros((self.rows, values.shape[1])).index_add_(0, row, selected)
        return summed.to(values.dtype)


class _Product(torch.autograd.Function):
    """`matrix @ values`, whose derivative is the product with `transpose`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, matrix: Selection, transpose: Selection) -> Tensor:
        ctx.matrix, ctx.transpose = matrix, transpose
        # Detached: embedding_bag then skips what only its own backward would need.
        return matrix.times(values.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return product(gradients[0], ctx.transpose, ctx.matrix), None, None


def product(values: Tensor, matrix: Selection, transpose: Selection) -> Tensor:
    """`matrix @ values`, differentiable to any order.

    Args:
        values: float [columns, F].
        matrix: what each row of the result sums.
        transpose: the same ones by columns; the caller vouches that it is the transpose.

    Returns:
        Float [R, F].
    """
    result: Tensor = _Product.apply(values, matrix, transpose)  # type: ignore[no-untyped-call]
    return result


def segments(index: Tensor, pointer: Tensor, order: Tensor | None = None) -> tuple[Selection, Selection]:
    """The pair (sum over segments, gather from segments).

    Args:
        index: int [E], segment of each entry.
        pointer: int [A + 1], where each segment begins among the entries sorted by segment.
        order: int [E], the entries sorted by segment; None where they already are.
    """
    entries = torch.arange(len(index) + 1, dtype=index.dtype, device=index.device)
    summing = Selection(entries[:-1] if order is None else order, pointer)
    return summing, Selection(index, entries, per_row=1)


def segment_sum(values: Tensor, index: Tensor, pointer: Tensor, order: Tensor | None = None) -> Tensor:
    """Sum of `values` [E, F] over the entries of each segment: [A, F]. Arguments as in `segments`."""
    summing, gathering = segments(index, pointer, order)
    return product(values, summing, gathering)


def gather(values: Tensor, index: Tensor, pointer: Tensor, order: Tensor | None = None) -> Tensor:
    """`values[index]`, from [A, F] to [E, F]. Arguments as in `segments`."""
    summing, gathering = segments(index, pointer, order)
    return product(values, gathering, summing)


@dataclass(frozen=True, slots=True)
class EdgeLayout:
    """What passes between the atoms and the edges of one batch, prepared once for all layers.

    Where both ends of the edges are meant at once, atoms stand in a table of 2A rows: row a is atom a as a
    receiver, row A + a the same atom as a sender. One product then reads both ends of an edge and adds them
    in a single pass over memory.
    """

    receiver_sum: Selection
    receiver_gather: Selection
    ends_sum: Selection
    ends_gather: Selection

    @classmethod
    def of(cls, sender: Tensor, receiver: Tensor, edge_pointer: Tensor) -> "EdgeLayout":
        """From edges sorted by receiver: sender and receiver int [E], their pointer [A + 1]."""
        atoms, edges = len(edge_pointer) - 1, len(sender)
        summing, gathering = segments(receiver, edge_pointer)
        kind, device = sender.dtype, sender.device
        order = torch.argsort(sender, stable=True).to(kind)
        sent = torch.bincount(sender, minlength=atoms).cumsum(0, dtype=kind)
        ends = torch.stack((receiver, sender + atoms), dim=1).flatten()
        return cls(
            receiver_sum=summing,
            receiver_gather=gathering,
            ends_sum=Selection(torch.cat((summing.column, order)), torch.cat((edge_pointer, edges + sent))),
            ends_gather=Selection(ends, torch.arange(0, 2 * edges + 1, 2, dtype=kind, device=device), per_row=2),
        )

    def to_atoms(self, values: Tensor) -> Tensor:
        """Sum over the edges that each atom receives: [E, F] to [A, F]."""
        return product(values, self.receiver_sum, self.receiver_gather)

    def to_edges(self, at_receiver: Tensor, at_sender: Tensor) -> Tensor:
        """`at_receiver[receiver] + at_sender[sender]`, from two [A, F] to [E, F]."""
        return product(torch.cat((at_receiver, at_sender)), self.ends_gather, self.ends_sum)
