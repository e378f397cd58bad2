"""A fixed random projection of gradients, small enough to keep those of many steps.

The inner product of two gradients is estimated from 64 numbers of each, by the count sketch (Charikar, Chen and
Farach-Colton 2002, doi:10.1007/3-540-45465-9_59): number i of the gradient is added to place b(i) with sign s(i),

    y_j = sum over i with b(i) = j of s(i) g_i,        E <y, y'> = <g, g'>,

with a relative error of about sqrt(2 / 64). No matrix is stored: s and b follow from a key and i alone, through tables
of a fixed size. Block n of 16,384 numbers reads its signs from a table of twice that length, from a place that is
drawn for the block; places b are one random arrangement, the same in every block.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from matsci_hpc.loading.permutation import keyed_number, keyed_words

DIMENSION = 64
BLOCK = 1 << 14
"""Small enough that the tables stay in the processor's cache between two steps, or nearly."""
AT_ONCE = 16
"""Whole blocks that are taken together: one by one, the calls take longer than the numbers; more leave the cache."""
AT_ONCE_ON_GPU = 512
"""32 MB: there, few calls are all that counts."""


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers that follow each other both in the buffer and in the order of the projection.

    Attributes:
        start: of the first one, in the buffer.
        number: of the first one, in the order that the projection goes by.
        length: how many.
    """

    start: int
    number: int
    length: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a block: its first place in the buffer and in the block, its length, and the block's place of signs."""

    start: int
    within: int
    length: int
    place: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Whole blocks that follow each other: the first place in the buffer, and int64 places of signs, one a block."""

    start: int
    places: Tensor


def runs_of(parameters: list[Parameter], order: list[Parameter]) -> list[Run]:
    """Where the numbers of a flat buffer stand in an order that does not depend on the number of ranks.

    Args:
        parameters: in the order of the buffer.
        order: the same parameters in the order that the projection goes by.
    """
    numbers, total = {}, 0
    for each in order:
        numbers[each] = total
        total += each.numel()
    runs: list[Run] = []
    start = 0
    for each in parameters:
        number, length = numbers[each], each.numel()
        if runs and runs[-1].number + runs[-1].length == number:
            runs[-1] = Run(runs[-1].start, runs[-1].number, runs[-1].length + length)
        else:
            runs.append(Run(start, number, length))
        start += length
    return runs


class Projection:
    """Projects flat gradients, the same for every life of a run and any number of ranks.

    Args:
        seed: what signs and places follow from.
        runs: of the buffer.
        device: of the gradients.
    """

    def __init__(self, seed: int, runs: list[Run], device: torch.device | str = "cpu") -> None:
        bits = np.unpackbits(keyed_words(2 * BLOCK // 64, "signs", seed).astype("<u8").view(np.uint8))
        signs = torch.from_numpy(2.0 * bits.astype(np.float32) - 1.0).to(device)
        # Numbers in the order of random words: the first BLOCK / DIMENSION of them go to place 0, and so on.
        order = np.argsort(keyed_words(BLOCK, "places", seed), kind="stable")
        self._order = torch.from_numpy(order.astype(np.int32)).to(device)
        self._signs = signs.unfold(0, BLOCK, 1)  # row p is what a block reads from place p; no copies
        self._pieces: list[_Piece] = []
        self._blocks: list[_Blocks] = []
        self._cut(seed, runs, AT_ONCE if torch.device(device).type == "cpu" else AT_ONCE_ON_GPU)

    def __call__(self, buffer: Tensor) -> Tensor:
        """The projection of a flat gradient: float32 [`DIMENSION`], on its device."""
        numbers = buffer.float()
        added = numbers.new_zeros(BLOCK)
        for piece in self._pieces:
            signs = self._signs[piece.place, piece.within : piece.within + piece.length]
            added[piece.within : piece.within + piece.length].addcmul_(
                numbers[piece.start : piece.start + piece.length], signs
            )
        for blocks in self._blocks:
            rows = numbers[blocks.start : blocks.start + len(blocks.places) * BLOCK].view(-1, BLOCK)
            added += self._signs.index_select(0, blocks.places).mul_(rows).sum(0)
        return added.index_select(0, self._order).view(DIMENSION, -1).sum(1)

    def _cut(self, seed: int, runs: list[Run], at_once: int) -> None:
        """Divide the buffer into whole blocks, many together, and what is left of blocks at both ends of a run."""
        for run in runs:
            done = 0
            places: list[int] = []
            first = 0  # of the whole blocks, in the buffer
            while done < run.length:
                block, within = divmod(run.number + done, BLOCK)
                length = min(run.length - done, BLOCK - within)
                place = keyed_number(BLOCK, "block", seed, block)
                if length == BLOCK:
                    first = first if places else run.start + done
                    places.append(place)
                else:
                    self._pieces.append(_Piece(run.start + done, within, length, place))
                done += length
            for number in range(0, len(places), at_once):
                some = torch.tensor(places[number : number + at_once], device=self._signs.device)
                self._blocks.append(_Blocks(first + number * BLOCK, some))
