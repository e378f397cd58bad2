"""Many samples as one flat graph of tensors; no per-sample objects."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class Batch:
    """Graphs laid end to end. A = atoms, E = edges, G = graphs of the batch.

    Edges are sorted by receiver, so `edge_pointer` is their CSR row pointer. The vector along edge e of graph g is
    `position[sender[e]] + edge_image[e] @ cell[g] - position[receiver[e]]`. Small types keep the traffic to memory
    and to devices low: an edge takes 11 bytes.

    Attributes:
        atomic_number: int32 [A].
        position: float [A, 3], angstrom.
        cell: float [G, 3, 3], rows are lattice vectors, angstrom; zeros where there is no lattice.
        atom_graph: int32 [A], graph that each atom belongs to.
        atom_pointer: int32 [G + 1], first atom of each graph.
        sender: int32 [E].
        receiver: int32 [E], ascending.
        edge_pointer: int32 [A + 1], first edge of each receiver.
        edge_image: int8 [E, 3], lattice image of the sender; None if all are zero.
        targets: by name; float [G] (regression, binary), int64 [G] (class), float [G, classes] (multilabel),
            float [G, *shape] (vectors and tensors), float [A, *shape] (targets of every atom). Values of absent targets
            are arbitrary but finite.
        present: bool [G] by target name.
        sample: int64 [G], number of each sample in the index of the data.
    """

    atomic_number: Tensor
    position: Tensor
    cell: Tensor
    atom_graph: Tensor
    atom_pointer: Tensor
    sender: Tensor
    receiver: Tensor
    edge_pointer: Tensor
    edge_image: Tensor | None
    targets: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    sample: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @property
    def graphs(self) -> int:
        """Number of graphs."""
        return len(self.atom_pointer) - 1

    @property
    def atoms(self) -> int:
        """Number of atoms of all graphs."""
        return len(self.atomic_number)

    @property
    def edges(self) -> int:
        """Number of edges of all graphs."""
        return len(self.sender)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """A copy on `device`, its floating-point tensors as `dtype`."""

        def move(tensor: Tensor) -> Tensor:
            kind = dtype if tensor.is_floating_point() else None
            return tensor.to(device=device, dtype=kind, non_blocking=True)

        return Batch(
            atomic_number=move(self.atomic_number),
            position=move(self.position),
            cell=move(self.cell),
            atom_graph=move(self.atom_graph),
            atom_pointer=move(self.atom_pointer),
            sender=move(self.sender),
            receiver=move(self.receiver),
            edge_pointer=move(self.edge_pointer),
            edge_image=None if self.edge_image is None else move(self.edge_image),
            targets={name: move(value) for name, value in self.targets.items()},
            present={name: move(value) for name, value in self.present.items()},
            sample=move(self.sample),
        )
