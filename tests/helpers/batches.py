"""Small random batches, with neighbour lists by brute force."""

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from matsci_hpc.loading.batch import Batch


@dataclass(frozen=True)
class Graph:
    """One structure: atomic numbers [A], positions [A, 3], lattice vectors as rows [3, 3] or none."""

    atomic_number: Tensor
    position: Tensor
    cell: Tensor | None = None


def random_graph(
    seed: int, atoms: int, *, periodic: bool = False, side: float = 4.0, dtype: torch.dtype = torch.float64
) -> Graph:
    """Atoms spread over a box of `side` angstrom, a skewed cell of that size if periodic."""
    generator = torch.Generator().manual_seed(seed)
    cell = side * torch.eye(3, dtype=dtype)
    cell = cell + 0.1 * side * torch.randn(3, 3, generator=generator, dtype=dtype)
    return Graph(
        torch.randint(1, 30, (atoms,), generator=generator),
        torch.rand(atoms, 3, generator=generator, dtype=dtype) @ cell,
        cell if periodic else None,
    )


def collate(graphs: list[Graph], cutoff: float, dtype: torch.dtype = torch.float64) -> Batch:
    """Lay graphs end to end, with an edge wherever an image of another atom is nearer than the cutoff."""
    senders, receivers, images, counts = [], [], [], [0]
    for graph in graphs:
        sender, receiver, image = _edges(graph, cutoff)
        senders.append(sender + sum(counts))
        receivers.append(receiver + sum(counts))
        images.append(image)
        counts.append(len(graph.atomic_number))
    atoms = sum(counts)
    none = torch.empty(0, dtype=torch.int32)
    receiver = torch.cat([none, *receivers]).int()
    degree = torch.bincount(receiver, minlength=atoms)
    sizes = torch.tensor(counts[1:], dtype=torch.int64)
    return Batch(
        atomic_number=torch.cat([none, *(g.atomic_number for g in graphs)]).int(),
        position=torch.cat([torch.empty(0, 3), *(g.position for g in graphs)]).to(dtype),
        cell=torch.stack([torch.zeros(3, 3) if g.cell is None else g.cell for g in graphs]).to(dtype)
        if graphs
        else torch.empty(0, 3, 3, dtype=dtype),
        atom_graph=torch.repeat_interleave(sizes).int(),
        atom_pointer=torch.tensor(counts).cumsum(0).int(),
        sender=torch.cat([none, *senders]).int(),
        receiver=receiver,
        edge_pointer=torch.cat((torch.zeros(1, dtype=torch.int32), degree.cumsum(0).int())),
        edge_image=torch.cat(images) if any(g.cell is not None for g in graphs) else None,
        sample=torch.arange(len(graphs)),
    )


def _edges(graph: Graph, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    atoms = len(graph.position)
    images = [(0, 0, 0)] if graph.cell is None else list(product((-2, -1, 0, 1, 2), repeat=3))
    lattice = torch.zeros(3, 3) if graph.cell is None else graph.cell
    shift = torch.tensor(images, dtype=graph.position.dtype) @ lattice.to(graph.position.dtype)
    vector = graph.position[None, :, None] + shift - graph.position[:, None, None]
    distance = vector.norm(dim=-1)
    near = distance < cutoff
    itself = torch.eye(atoms, dtype=torch.bool)[:, :, None] & (shift.norm(dim=-1) == 0)
    receiver, sender, image = (near & ~itself).nonzero(as_tuple=True)
    return sender, receiver, torch.tensor(images, dtype=torch.int8)[image]


def with_geometry(batch: Batch, matrix: Tensor, translation: Tensor) -> Batch:
    """Positions times an orthogonal matrix, plus a translation; lattices turn, but do not move."""
    return replace(batch, position=batch.position @ matrix.T + translation, cell=batch.cell @ matrix.T)


def orthogonal(seed: int, determinant: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random rotation (determinant 1) or rotation with reflection (-1)."""
    generator = torch.Generator().manual_seed(seed)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=dtype))
    return matrix * (determinant * torch.linalg.det(matrix).sign())
