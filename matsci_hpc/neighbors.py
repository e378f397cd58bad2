"""Periodic radius graphs as CSR.

The rule: atom i (receiver) has an edge from every image of every atom j (sender) with

    |x_j + S cell - x_i| <= cutoff + TIE_TOLERANCE

except from itself in the same cell (i = j and S = 0). The distance is computed in float64 from the float32
positions and cell that a shard stores, as (x_j - x_i) + S cell, whose negation is exact: i -> j with image S is an
edge if and only if j -> i with image -S is.

Crystals have shells of neighbours at equal distance, and lattice constants like round numbers. Rounding to float32
scatters such a shell by up to about 1e-5 angstrom, so that a bare `<= cutoff` could take half of it. The tolerance is
ten times the scatter: pairs at exactly the cutoff are always edges, and a shell is taken whole or not at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.structure import MIN_DISTANCE, Structure

RULE = "radius, images included, ties at the cutoff are edges (tolerance 1e-4 angstrom), no self edge"
TIE_TOLERANCE = 1e-4
"""Angstrom."""
MAX_DEGREE = int(np.iinfo(np.uint16).max)
MAX_BOXES = 3e6
"""Boxes of the size of the cutoff around all atoms, of 250 bytes each in the search: 0.75 GB, a cube of 140 cutoffs."""
MAX_IMAGES = 2e7
"""Images of atoms that a search may visit: damaged files would take all time, crystals need 1e5."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Edges of one structure, sorted by receiver, then sender, then image.

    Attributes:
        degree: uint16 [atoms], edges that each atom receives.
        sender: int64 [edges], atom within the structure.
        shift: int8 [edges, 3], lattice image S of the sender.
    """

    degree: NDArray[np.uint16]
    sender: NDArray[np.int64]
    shift: NDArray[np.int8]


class NeighborError(ValueError):
    """A structure for which no sound radius graph exists; the message is the reason."""


def radius_graph(structure: Structure, cutoff: float) -> Edges:
    """All edges of a structure by the rule of this module.

    Args:
        structure: a structure without fault.
        cutoff: angstrom.

    Raises:
        NeighborError: two atoms coincide, or an image index leaves int8.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    position = structure.position.astype(np.float64)
    cell = structure.cell.astype(np.float64)
    # The search wants a lattice even where nothing repeats; it is not used then.
    lattice = cell if structure.pbc.any() else np.eye(3)
    lattice = _complete_lattice(lattice, structure.pbc)
    margin = 2 * TIE_TOLERANCE
    _refuse_endless_search(position, lattice, structure.pbc, cutoff + margin)
    receiver, sender, image, _ = find_points_in_spheres(
        position, position, r=cutoff + margin, pbc=structure.pbc.astype(np.int64), lattice=lattice
    )
    displacement = (np.take(position, sender, axis=0) - np.take(position, receiver, axis=0)) + image @ cell
    distance = np.sqrt(np.einsum("ij,ij->i", displacement, displacement))
    # No distance but that of an atom to itself is 0, unless atoms coincide, which is refused below.
    keep = distance <= cutoff + TIE_TOLERANCE
    near = np.flatnonzero(distance < MIN_DISTANCE)
    keep[near] &= (receiver[near] != sender[near]) | (image[near] != 0).any(axis=1)
    if keep[near].any():
        e = near[keep[near]][int(distance[near[keep[near]]].argmin())]
        pair = sorted((int(receiver[e]), int(sender[e])))
        raise NeighborError(f"atoms {pair[0]} and {pair[1]} are {distance[e]:.4f} angstrom apart")
    receiver, sender, image = receiver[keep], sender[keep], image[keep]
    if len(image) and np.abs(image).max() > np.iinfo(np.int8).max:
        raise NeighborError("the cell is so small that the cutoff reaches over 127 lattice images")
    sender, shift = _sorted(receiver, sender, image, len(position))
    degree = np.bincount(receiver, minlength=len(position))
    if degree.max(initial=0) > MAX_DEGREE:
        raise NeighborError(f"an atom has over {MAX_DEGREE:,} neighbours")
    return Edges(degree.astype(np.uint16), sender, shift)


def _sorted(
    receiver: NDArray[np.int64], sender: NDArray[np.int64], image: NDArray[np.float64], atoms: int
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Senders and images by receiver, then sender, then image."""
    # All but the receiver in one number, whose order is theirs; with the receiver as well where that fits 63 bits.
    key = (sender << 24) + (image @ _PLACES + _MIDDLE).astype(np.int64)
    bits = 24 + (atoms - 1).bit_length()
    fits = 2 * bits - 24 <= 63
    key = np.sort((receiver << bits) + key) if fits else key[np.lexsort((key, receiver))]
    shift = np.empty((len(key), 3), dtype=np.int8)
    for axis, place in enumerate((16, 8, 0)):
        shift[:, axis] = ((key >> place) & 255) - 128
    return (key >> 24) & ((1 << (bits - 24)) - 1), shift


_PLACES = np.array([2.0**16, 2.0**8, 1.0])
_MIDDLE = 128 * float(_PLACES.sum())


def _refuse_endless_search(
    position: NDArray[np.float64], lattice: NDArray[np.float64], pbc: NDArray[np.bool_], radius: float
) -> None:
    """Raise NeighborError where the search would not end within reasonable time and memory."""
    span = np.ptp(position, axis=0)
    if np.prod(span / radius + 3) > MAX_BOXES:
        raise NeighborError(f"the atoms are spread over {span.max():.3g} angstrom, too far for this cutoff")
    if not pbc.any():
        return
    volume = abs(np.linalg.det(lattice))
    if pbc.all() and 4 / 3 * np.pi * radius**3 * len(position) / volume > 2 * MAX_DEGREE:
        raise NeighborError(f"the cell is so small that an atom has over {MAX_DEGREE:,} neighbours")
    # Columns of the inverse are the reciprocal vectors: a sphere reaches radius * |b| images in each direction.
    inverse = np.linalg.inv(lattice)
    reach = radius * np.linalg.norm(inverse, axis=0) + np.ptp(position @ inverse, axis=0)
    if len(position) * np.prod((2 * reach + 1)[pbc]) > MAX_IMAGES:
        raise NeighborError("the cell is so small or so skewed that the cutoff reaches over too many lattice images")


def senders_of_all_pairs(sizes: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """Senders where every atom of a sample receives an edge from every other one, sorted by sample and receiver.

    Args:
        sizes: int64 [n], atoms of each sample.

    Returns:
        [sum of size (size - 1)], atom within the sample, of the smallest type that fits.
    """
    kind = np.min_scalar_type(max(int(sizes.max(initial=1)) - 1, 0))
    others = {n: _all_others(n).astype(kind) for n in np.unique(sizes).tolist()}
    return np.concatenate([np.empty(0, dtype=kind), *(others[n] for n in sizes.tolist())])


def _all_others(size: int) -> NDArray[np.intp]:
    """For each of `size` atoms in turn the numbers of the others."""
    return np.broadcast_to(np.arange(size), (size, size))[~np.eye(size, dtype=np.bool_)]


def _complete_lattice(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The cell with unit vectors at right angles to the rest along the axes that do not repeat.

    The search inverts the lattice, and what a file gives along such an axis may be zero or parallel to the others. It
    never counts: images along the axis are 0.
    """
    filled = cell.copy()
    periodic, missing = np.flatnonzero(pbc), np.flatnonzero(~pbc)
    if len(missing) == 1:
        normal = np.cross(*cell[periodic])
        filled[missing[0]] = normal / np.linalg.norm(normal)
    elif len(missing) == 2:
        along = cell[periodic[0]] / np.linalg.norm(cell[periodic[0]])
        across = np.cross(along, np.eye(3)[np.abs(along).argmin()])
        across /= np.linalg.norm(across)
        filled[missing] = across, np.cross(along, across)
    return filled
