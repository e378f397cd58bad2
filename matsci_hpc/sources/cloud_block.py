"""Symmetric point clouds as the generator gives them: many in flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.ragged import offsets
from matsci_hpc.sources.clouds import ranges


@dataclass(frozen=True, slots=True)
class CloudBlock:
    """Clouds in the flat layout of a shard, for `clouds` clouds with `atoms` atoms in all.

    Attributes:
        position: float32 [atoms, 3], angstrom.
        atomic_number: uint8 [atoms].
        offset: int64 [clouds + 1], first atom of each cloud.
        point_group: int16 [clouds], number in the list of groups.
    """

    position: NDArray[np.float32]
    atomic_number: NDArray[np.uint8]
    offset: NDArray[np.int64]
    point_group: NDArray[np.int16]

    def chosen(self, rows: NDArray[np.int64]) -> "CloudBlock":
        """Some of the clouds."""
        atoms = np.diff(self.offset)[rows]
        columns = ranges(self.offset[rows].astype(np.intp), atoms.astype(np.intp))
        return CloudBlock(
            position=self.position[columns],
            atomic_number=self.atomic_number[columns],
            offset=offsets(atoms).astype(np.int64),
            point_group=self.point_group[rows],
        )


def joined(parts: Sequence[CloudBlock]) -> CloudBlock:
    """The clouds of some blocks, at least one, one block after the other."""
    if len(parts) == 1:
        return parts[0]
    return CloudBlock(
        position=np.concatenate([each.position for each in parts]),
        atomic_number=np.concatenate([each.atomic_number for each in parts]),
        offset=offsets(np.concatenate([np.diff(each.offset) for each in parts])).astype(np.int64),
        point_group=np.concatenate([each.point_group for each in parts]),
    )
