"""The random order of an epoch: sample by sample, or in shuffled blocks of samples that lie together on disk."""

import numpy as np

from matsci_hpc.loading.permutation import Numbers, Permutation, keyed_number


class InTurn:
    """No order but that of the numbers, for samples that are in random order already and too many to shuffle."""

    def __call__(self, positions: Numbers) -> Numbers:
        """The numbers at some positions: these themselves, int64 [n]."""
        return positions


class Order:
    """A random order of the numbers 0 to `size` - 1 in which runs of `block` numbers stay together.

    The borders of the blocks are shifted by a random amount, so that under another key other numbers are together.
    The last block may be shorter than the others; it stands at a random place like any other.

    Args:
        size: how many numbers.
        block: length of the runs; 1 is a full shuffle.
        key: seed, epoch, purpose and whatever else tells this order from others.
    """

    def __init__(self, size: int, block: int, *key: int | str) -> None:
        self.size = size
        self.block = max(1, min(block, size))
        whole, self._short = divmod(size, self.block)
        self._blocks = Permutation(whole, "blocks", *key)
        self._shift = keyed_number(self.block, "block shift", *key)
        self._short_slot = keyed_number(whole + 1, "short block", *key)

    def __call__(self, positions: Numbers) -> Numbers:
        """The numbers at some positions of the order: int64 [n]."""
        if self.block == 1:
            return self._blocks(positions)
        first_short = self._short_slot * self.block
        after = positions >= first_short + self._short
        in_short = (positions >= first_short) & ~after
        slot, within = np.divmod(positions - self._short * after, self.block)
        slot[in_short] = 0  # any slot that exists; these are set right below
        number = self._blocks(slot) * self.block + within if self._blocks.size else within
        number[in_short] = self.size - self._short + positions[in_short] - first_short
        number += self._shift
        number[number >= self.size] -= self.size
        return number
