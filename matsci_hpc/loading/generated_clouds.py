"""How the samples of a data set without files are drawn: in whole blocks that are kept, or each alone.

A cloud of a whole block takes the least time. So a rank that needs a good part of a block draws it whole and keeps it,
and batches should come in an order that stays within a few blocks. Of many ranks that share a block each draws its own
clouds alone. Both give the same clouds, to the last bit.
"""

from typing import Any

import numpy as np

from matsci_hpc.loading.generated_sizes import Numbers, SplitSizes
from matsci_hpc.sources.cloud_block import CloudBlock, joined
from matsci_hpc.sources.cloud_generator import BLOCK, CloudGenerator

CACHE_BYTES = 64 * 2**20
"""Blocks kept by a process."""
ALONE, FEW_ALONE = 1100, 40
"""What it takes to draw n clouds alone rather than in a block, besides n, in clouds of a block: the first, but no more
than so many for each. Measured with 1 to 3000 clouds of one block and of 13; it decides about time alone."""


class KeptClouds:
    """The clouds of several splits.

    Threads may share it: each step on the table of blocks is atomic, and two threads can at worst draw a block twice.

    Args:
        generator: draws them.

    Attributes:
        ranks: that ask for samples, each of them for about so large a part of every block.
    """

    def __init__(self, generator: CloudGenerator) -> None:
        self.ranks = 1
        self._generator = generator
        self._blocks: dict[tuple[str, int], CloudBlock] = {}

    def clouds(self, sizes: SplitSizes, positions: Numbers) -> CloudBlock:
        """Samples of a split by their positions in it: int64 [n], in non-descending order, at least one."""
        split = sizes.split.name
        block, row = np.divmod(positions, BLOCK)
        numbers = np.unique(block).tolist()
        if self._is_less_alone(sizes, [(split, number) for number in numbers], len(positions)):
            return self._generator.samples(split, positions)
        return joined([self._block(split, number).chosen(row[block == number]) for number in numbers])

    def __getstate__(self) -> dict[str, Any]:
        """Blocks stay behind; another process draws its own."""
        return {**self.__dict__, "_blocks": {}}

    def _is_less_alone(self, sizes: SplitSizes, keys: list[tuple[str, int]], count: int) -> bool:
        """Whether to draw so many samples takes less time alone than the share of these blocks that falls to them."""
        all_can_be_kept = sizes.split.count * sizes.sample_bytes <= CACHE_BYTES
        if all_can_be_kept or all(key in self._blocks for key in keys):
            return False
        return count + min(ALONE, FEW_ALONE * count) < count * self.ranks

    def _block(self, split: str, number: int) -> CloudBlock:
        key = split, number
        block = self._blocks.pop(key, None) or self._generator.block(split, number)
        self._blocks[key] = block
        kept = max(1, CACHE_BYTES // max(1, block.position.nbytes + block.atomic_number.nbytes))
        for oldest in list(self._blocks)[:-kept]:
            self._blocks.pop(oldest, None)
        return block
