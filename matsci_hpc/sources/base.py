"""What every source of structures offers to preparation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

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
