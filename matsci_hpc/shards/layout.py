"""How a shard is laid out: the one place that knows names, types and versions of what is on disk.

For n samples with A atoms and E edges a shard is an HDF5 file of flat, contiguous, uncompressed arrays, so that a
reader can map each of them into memory at its offset in the file:

    offsets/atoms          int64   [n + 1]     first atom of each sample
    offsets/edges          int64   [n + 1]     first edge of each sample
    atoms/atomic_number    uint8   [A]
    atoms/position         float32 [A, 3]      angstrom, Cartesian
    atoms/degree           uint16  [A]         edges that the atom receives
    edges/sender           uint8..uint32 [E]   atom within the sample, smallest type that fits; sorted by receiver
    edges/shift            int8    [E, 3]      lattice image of the sender; left out where all are zero
    structures/id          bytes   [n]         UTF-8, padded with zeros
    structures/cell        float32 [n, 3, 3]   angstrom, rows are lattice vectors; left out where nothing is periodic
    structures/pbc         uint8   [n, 3]
    structures/split       uint8   [n]         number of the split in the manifest
    structures/edges       uint32  [n]         number of edges; only where the shard holds none of the edges themselves:
                                               then offsets/edges, atoms/degree and edges/* are left out
    targets/NAME           float32 [n]         regression and binary, NaN where absent
                           int16   [n]         class, -1 where absent
                           uint8   [n, classes] multilabel
                           float32 [n, *shape]  regression of a vector or tensor, all NaN where absent
    atoms/NAME             float32 [A, *shape]  regression of every atom, such as forces: all atoms of a sample have a
                                                value, or all are NaN
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.neighbors import Edges
from matsci_hpc.ragged import offsets
from matsci_hpc.structure import Structure
from matsci_hpc.targets import TargetSpec

FORMAT_NAME = "matsci-hpc shard"
FORMAT_VERSION = 2
ALIGNMENT_BYTES = 64
"""Arrays begin at multiples of this, so that mapped arrays are aligned for every element type and cache line."""

Array = NDArray[np.generic]


@dataclass(slots=True)
class ShardContent:
    """The arrays of one shard by their names on disk, and its attributes."""

    arrays: dict[str, Array]
    attributes: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.arrays["offsets/atoms"]) - 1

    @property
    def atoms(self) -> int:
        """Number of atoms of all samples."""
        return len(self.arrays["atoms/atomic_number"])

    @property
    def edges(self) -> int:
        """Number of edges of all samples."""
        return int(edge_counts(self.arrays).sum())


def build_content(
    structures: list[Structure],
    edges: list[Edges],
    targets: dict[str, TargetSpec],
    splits: list[int],
    *,
    store_edges: bool = True,
) -> ShardContent:
    """Lay samples end to end.

    Args:
        structures: at least one sample.
        edges: the edges of each.
        targets: kind of every target of the data set, present in these samples or not.
        splits: number of the split of each sample.
        store_edges: whether the shard holds the edges, or their number alone.
    """
    sizes = np.array([len(each.atomic_number) for each in structures], dtype=np.int64)
    arrays: dict[str, Array] = {
        "offsets/atoms": offsets(sizes),
        "atoms/atomic_number": np.concatenate([each.atomic_number for each in structures]),
        "atoms/position": np.concatenate([each.position for each in structures]),
        "structures/id": np.array([each.id.encode() for each in structures], dtype=np.bytes_),
        "structures/cell": np.stack([each.cell for each in structures]),
        "structures/pbc": np.stack([each.pbc for each in structures]).astype(np.uint8),
        "structures/split": np.array(splits, dtype=np.uint8),
    }
    if not arrays["structures/pbc"].any():
        del arrays["structures/cell"]
    for name, spec in targets.items():
        arrays[target_path(name, spec)] = _column(name, spec, structures)
    counts = np.array([len(each.sender) for each in edges], dtype=np.int64)
    arrays |= (
        _edge_arrays(edges, counts, int(sizes.max())) if store_edges else {"structures/edges": counts.astype("u4")}
    )
    return ShardContent(arrays)


def edge_counts(arrays: Mapping[str, Array]) -> NDArray[np.int64]:
    """Number of edges of each sample of a shard, which may hold the edges or not: int64 [n]."""
    if "structures/edges" in arrays:
        return arrays["structures/edges"].astype(np.int64)
    first = arrays["offsets/edges"].astype(np.int64)
    counts: NDArray[np.int64] = first[1:] - first[:-1]
    return counts


def target_path(name: str, spec: TargetSpec) -> str:
    """Name of a target's array in a shard."""
    return f"atoms/{name}" if spec.per_atom else f"targets/{name}"


def deciding(values: Array, spec: TargetSpec, first_atom: NDArray[np.int64]) -> Array:
    """What tells whether samples carry a target: a row for each of them, from its array in a shard.

    Args:
        values: the array.
        spec: of the target.
        first_atom: int64 [n], first atom of each sample in the shard.
    """
    # A sample has at least one atom, and values for all of them or for none.
    return values[first_atom] if spec.per_atom else values


def is_present(values: Array, spec: TargetSpec) -> NDArray[np.bool_]:
    """Which samples carry a target, from what is stored, or of a target of every atom from `deciding`: bool [n]."""
    if spec.kind == "multilabel":
        return np.ones(len(values), dtype=bool)
    if spec.kind == "class":
        return values.astype(np.int16) >= 0
    leading = values.reshape(len(values), math.prod(values.shape[1:]))[:, 0]
    return ~np.isnan(leading.astype(np.float32))


def _edge_arrays(edges: list[Edges], counts: NDArray[np.int64], most_atoms: int) -> dict[str, Array]:
    arrays: dict[str, Array] = {
        "offsets/edges": offsets(counts),
        "atoms/degree": np.concatenate([each.degree for each in edges]),
        "edges/sender": np.concatenate([each.sender for each in edges]).astype(np.min_scalar_type(most_atoms - 1)),
        "edges/shift": np.concatenate([each.shift for each in edges]),
    }
    if not arrays["edges/shift"].any():
        del arrays["edges/shift"]
    return arrays


def _column(name: str, spec: TargetSpec, structures: Sequence[Structure]) -> Array:
    values = [each.targets.get(name) for each in structures]
    if spec.kind == "multilabel":
        return np.stack([np.asarray(value, dtype=np.uint8) for value in values])
    if spec.kind == "class":
        return np.array([-1 if value is None else value for value in values], dtype=np.int16)
    if spec.is_number:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    shapes = [spec.value_shape(len(each.atomic_number)) for each in structures]
    filled = [
        np.full(shape, np.nan, dtype=np.float32) if value is None else np.asarray(value, dtype=np.float32)
        for value, shape in zip(values, shapes, strict=True)
    ]
    return np.concatenate(filled) if spec.per_atom else np.stack(filled)
