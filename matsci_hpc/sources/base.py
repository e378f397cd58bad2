"""What every source of structures offers to preparation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.neighbors import Edges
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.targets import TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureWithEdges(Structure):
    """A structure whose edges the source knows already.

    Attributes:
        edges: by the rule of `neighbors` for `cutoff`.
        cutoff: angstrom.
    """

    edges: Edges
    cutoff: float


class Source(Protocol):
    """A numbered sequence of inputs, each of which gives one structure or a reason why not.

    A source is built on rank 0 and pickled to the others, so it holds paths and tables, never open files.
    `read` is a pure function of the source and the range: any rank may read any range, in any order.
    """

    targets: dict[str, TargetSpec]
    """Every target that a structure of this source may carry."""
    splits: tuple[str, ...]
    """Names of all splits in the order of their numbers."""
    identity: str
    """Hash of the input as far as the config does not determine it, so that a restart notices another input."""
    remarks: dict[str, int]
    """Counts worth knowing that are no faults of single inputs, such as property rows without a structure."""

    def __len__(self) -> int:
        """Number of inputs, the unusable ones included."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """Exactly `stop - start` results, in the order of the inputs."""
        ...


@runtime_checkable
class Synthetic(Protocol):
    """A source that can have samples which nothing but a seed tells apart from others."""

    generators: tuple[str, ...]
    """What drew them, seed and split included; data sets that name the same one may hold the same samples."""


@dataclass(frozen=True, slots=True)
class FlatSamples:
    """Samples without periodic images end to end, n samples with A atoms in all, each at least one.

    Attributes:
        id: bytes [n], as wide as the longest.
        atomic_number: uint8 [A].
        position: float32 [A, 3], angstrom.
        offset: int64 [n + 1], first atom of each sample.
        split: uint8 [n], number of the split.
        targets: the column of every target of the source as shards store it, see `shards.layout`.
        apart: angstrom; no two atoms of a sample are nearer, by the way the samples were made. 0 where that is unknown.
    """

    id: NDArray[np.bytes_]
    atomic_number: NDArray[np.uint8]
    position: NDArray[np.float32]
    offset: NDArray[np.int64]
    split: NDArray[np.uint8]
    targets: dict[str, NDArray[np.generic]]
    apart: float


@runtime_checkable
class FlatSource(Source, Protocol):
    """A source that can give many samples at once, without an object for each; none of its inputs is `Rejected`."""

    def read_flat(self, start: int, stop: int) -> FlatSamples:
        """The very samples that `read` gives."""
        ...
