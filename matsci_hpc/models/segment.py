"""Gathering from atoms to edges and summing edges back onto atoms, as exact adjoints of each other.

Both are products with a sparse matrix of zeros and ones: a gather takes one row of `values` per edge, a
segment sum takes all edges of an atom. The backward pass of a product with M is a product with M transposed,
so each is the derivative of the other at every order, and forces or Hessians need no further code.

On a CPU, `index_select` is the fastest gather and `embedding_bag` the fastest segment sum; PyTorch's own
derivatives of the two are slow scatters, which pairing them avoids. The order of summation is fixed, so
results are the same from run to run. `device_sums` has what other devices take. Indices are int32 or int64, all of
a batch alike; half the bytes are half the traffic.

Eager code goes through an autograd Function, which costs least per call; under `torch.compile` the same product is
the operator `matsci_hpc::product`, which the compiler takes as it is, since its own scatters on a CPU are slow.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matsci_hpc.models.device_sums import scatter, sum_on_device
from matsci_hpc.models.operators import define_operator


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
        if values.device.type != "cpu":
            return sum_on_device(values, self.column, self.pointer, self.per_row)
        if values.shape[1] == 0:  # nothing to sum, and the kernel does not take it
            return scatter(values, self.column, self.pointer, self.per_row)
        summed, *_ = torch.embedding_bag(
            values.contiguous(), self.column, self.pointer, mode=0, include_last_offset=True
        )
        return summed


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


def _product_of_parts(
    values: Tensor,
    column: Tensor,
    pointer: Tensor,
    transpose_column: Tensor,
    transpose_pointer: Tensor,
    per_row: int,
    transpose_per_row: int,
) -> Tensor:
    del transpose_column, transpose_pointer, transpose_per_row
    return Selection(column, pointer, per_row or None).times(values)


def _shape_of_product(values: Tensor, column: Tensor, pointer: Tensor, *others: Any) -> Tensor:
    del column, others
    return values.new_empty((pointer.shape[0] - 1, values.shape[1]))


_product_operator = define_operator(
    "product(Tensor values, Tensor column, Tensor pointer, Tensor transpose_column, Tensor transpose_pointer, "
    "int per_row, int transpose_per_row) -> Tensor",
    _product_of_parts,
    _shape_of_product,
)
"""`_Product` for the compiler; a number per row of 0 stands for none."""


def _keep_matrix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[1:5])
    ctx.per_row, ctx.transpose_per_row = inputs[5:]


def _product_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    column, pointer, transpose_column, transpose_pointer = ctx.saved_tensors
    result: Tensor = _product_operator(
        gradient, transpose_column, transpose_pointer, column, pointer, ctx.transpose_per_row, ctx.per_row
    )
    return result, None, None, None, None, None, None


torch.library.register_autograd("matsci_hpc::product", _product_backward, setup_context=_keep_matrix)


def product(values: Tensor, matrix: Selection, transpose: Selection) -> Tensor:
    """`matrix @ values`, differentiable to any order.

    Args:
        values: float [columns, F].
        matrix: what each row of the result sums.
        transpose: the same ones by columns; the caller vouches that it is the transpose.

    Returns:
        Float [R, F].
    """
    result: Tensor
    if torch.compiler.is_compiling():
        result = _product_operator(
            values,
            matrix.column,
            matrix.pointer,
            transpose.column,
            transpose.pointer,
            matrix.per_row or 0,
            transpose.per_row or 0,
        )
    else:
        result = _Product.apply(values, matrix, transpose)  # type: ignore[no-untyped-call]
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
    """What passes between the atoms and the edges of a batch, prepared once for all layers.

    Where both ends of the edges are meant at once, atoms stand in a table of 2A rows: row a is atom a as a
    receiver, row A + a the same atom as a sender. One product then reads both ends of an edge and adds them
    in a single pass over memory.

    A part of a batch holds all edges of some receivers that follow each other. Its tables of both ends are those
    of the whole batch; its sums are those of its own receivers.
    """

    receiver_sum: Selection
    receiver_gather: Selection
    ends_sum: Selection
    ends_gather: Selection
    sender_sum: Selection
    sender_gather: Selection

    @classmethod
    def of(
        cls, sender: Tensor, receiver: Tensor, edge_pointer: Tensor, receivers: tuple[int, int] | None = None
    ) -> "EdgeLayout":
        """From edges sorted by receiver: sender and receiver int [E], their pointer [A + 1].

        Args:
            sender: of the whole batch, int [E].
            receiver: likewise.
            edge_pointer: likewise, [A + 1].
            receivers: first atom of a part, and the first beyond it; the whole batch if left out.
        """
        atoms, kind, device = len(edge_pointer) - 1, sender.dtype, sender.device
        start, stop = receivers or (0, atoms)
        if receivers is not None:
            first, last = int(edge_pointer[start]), int(edge_pointer[stop])
            sender, receiver = sender[first:last], receiver[first:last]
            edge_pointer = edge_pointer.clamp(first, last) - first
        edges = len(sender)
        summing, gathering = segments(receiver - start, edge_pointer[start : stop + 1])
        by_sender = torch.sort(sender, stable=True)
        order = by_sender.indices.to(kind)
        if device.type == "cpu":
            sent = torch.bincount(sender, minlength=atoms).cumsum(0, dtype=kind)
        else:  # where counting would wait for the device
            atom = torch.arange(1, atoms + 1, dtype=kind, device=device)
            sent = torch.searchsorted(by_sender.values, atom, out_int32=kind == torch.int32)
        ends = torch.stack((receiver, sender + atoms), dim=1).flatten()
        sent_pointer = torch.cat((edge_pointer[:1], sent))
        return cls(
            sender_sum=Selection(order, sent_pointer),
            sender_gather=Selection(sender, gathering.pointer, per_row=1),
            receiver_sum=summing,
            receiver_gather=gathering,
            ends_sum=Selection(torch.cat((summing.column, order)), torch.cat((edge_pointer, edges + sent))),
            ends_gather=Selection(ends, torch.arange(0, 2 * edges + 1, 2, dtype=kind, device=device), per_row=2),
        )

    @property
    def edges(self) -> int:
        """Number of edges."""
        return len(self.receiver_gather.column)

    def to_atoms(self, values: Tensor) -> Tensor:
        """Sum over the edges that each receiver gets: [E, F] to [receivers, F]."""
        return product(values, self.receiver_sum, self.receiver_gather)

    def to_edges(self, at_receiver: Tensor, at_sender: Tensor) -> Tensor:
        """`at_receiver[receiver] + at_sender[sender]`, from two [A, F] to [E, F]."""
        return self.from_table(torch.cat((at_receiver, at_sender)))

    def from_table(self, ends: Tensor) -> Tensor:
        """The same from a table of both ends, [2A, F]."""
        return product(ends, self.ends_gather, self.ends_sum)

    def from_senders(self, values: Tensor) -> Tensor:
        """`values[sender]`, from [A, F] to [E, F]."""
        return product(values, self.sender_gather, self.sender_sum)


def receiver_ranges(edge_pointer: list[int], most_edges: int) -> list[tuple[int, int]]:
    """Receivers in parts of at most so many edges, about equally many in each; an atom is never divided.

    Args:
        edge_pointer: [A + 1], first edge of each receiver.
        most_edges: of a part of more than one receiver.

    Returns:
        First atom of each part and the first beyond it; one part where there are no edges.
    """
    atoms, edges = len(edge_pointer) - 1, edge_pointer[-1]
    parts = max(1, -(-edges // most_edges))
    limit = -(-edges // parts)
    ranges = []
    start = 0
    while start < atoms:
        stop = max(start + 1, bisect_right(edge_pointer, edge_pointer[start] + limit) - 1)
        ranges.append((start, stop))
        start = stop
    return ranges or [(0, 0)]
