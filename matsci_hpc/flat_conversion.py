"""Many samples to the content of a shard at once: the same bytes as sample by sample, without an object for each.

Clouds of points have no periodic images, so their edges are the pairs within the cutoff. Where the cutoff reaches
over the whole cloud these are all pairs, and no distance has to be computed; otherwise all distances of the clouds
with equally many atoms are computed together, by the formula of `neighbors`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.prep import Neighbors
from matsci_hpc.neighbors import TIE_TOLERANCE, NeighborError, radius_graph, senders_of_all_pairs
from matsci_hpc.ragged import offsets
from matsci_hpc.shards.layout import Array, ShardContent
from matsci_hpc.shards.records import Quarantined
from matsci_hpc.sources.base import FlatSamples, FlatSource
from matsci_hpc.structure import MAX_ATOMIC_NUMBER, MAX_COORDINATE, MIN_DISTANCE, Structure

CHUNK_PAIRS = 1 << 18
"""Pairs of atoms whose distances are computed together: few enough for the cache of a core."""
MAX_REACH = 50
"""Clouds whose radius is more cutoffs than this may be too wide for a search; `radius_graph` decides."""
ROUNDING = 1e-5
"""Relative; more than single precision loses in a radius."""


@dataclass(frozen=True, slots=True)
class FlatEdges:
    """Edges of many samples, sorted by sample, receiver and sender.

    Attributes:
        count: int64 [n], edges of each sample.
        degree: uint16 [A].
        sender: [edges], atom within the sample; empty where only the number was asked for.
        close: bool [n], which samples have two atoms nearer than chemistry allows.
    """

    count: NDArray[np.int64]
    degree: NDArray[np.uint16]
    sender: NDArray[np.unsignedinteger]
    close: NDArray[np.bool_]


def flat_content(
    source: FlatSource, start: int, stop: int, neighbors: Neighbors
) -> tuple[ShardContent | None, list[Quarantined]]:
    """What the shard of the inputs `start` to `stop - 1` holds, None where none is usable, and those that are not."""
    samples = source.read_flat(start, stop)
    sizes = np.diff(samples.offset)
    squared = np.einsum("ai,ai->a", samples.position, samples.position)
    radius = np.sqrt(np.maximum.reduceat(squared, samples.offset[:-1]).astype(np.float64)) * (1 + ROUNDING)
    edges = _edges(samples, sizes, radius, neighbors)
    rejected = {}
    for row in np.flatnonzero(_doubtful(samples, radius, neighbors.cutoff) | edges.close).tolist():
        reason = _fault(_structure(samples, row), neighbors.cutoff)
        if reason is not None:
            rejected[row] = Quarantined(index=start + row, source=samples.id[row].decode(), reason=reason)
    if rejected:
        usable = np.ones(len(sizes), dtype=np.bool_)
        usable[list(rejected)] = False
        if not usable.any():
            return None, list(rejected.values())
        samples, edges, sizes = _usable_samples(samples, usable), _usable_edges(edges, sizes, usable), sizes[usable]
    return ShardContent(_arrays(samples, sizes, edges, store_edges=neighbors.store)), list(rejected.values())


def _arrays(samples: FlatSamples, sizes: NDArray[np.int64], edges: FlatEdges, *, store_edges: bool) -> dict[str, Array]:
    arrays: dict[str, Array] = {
        "offsets/atoms": samples.offset,
        "atoms/atomic_number": samples.atomic_number,
        "atoms/position": samples.position,
        "structures/id": samples.id,
        "structures/pbc": np.zeros((len(sizes), 3), dtype=np.uint8),
        "structures/split": samples.split,
    }
    arrays |= {f"targets/{name}": column for name, column in samples.targets.items()}
    if not store_edges:
        return arrays | {"structures/edges": edges.count.astype(np.uint32)}
    return arrays | {
        "offsets/edges": offsets(edges.count),
        "atoms/degree": edges.degree,
        "edges/sender": edges.sender.astype(np.min_scalar_type(int(sizes.max()) - 1), copy=False),
    }


def _edges(
    samples: FlatSamples, sizes: NDArray[np.int64], radius: NDArray[np.float64], neighbors: Neighbors
) -> FlatEdges:
    known_apart = samples.apart >= MIN_DISTANCE
    if known_apart and bool((2 * radius <= neighbors.cutoff + TIE_TOLERANCE).all()):
        return _complete(sizes, with_senders=neighbors.store)
    close = np.zeros(len(sizes), dtype=np.bool_)
    count = np.zeros(len(sizes), dtype=np.int64)
    degree = np.zeros(len(samples.position), dtype=np.uint16)
    found: list[tuple[NDArray[np.int64], NDArray[np.unsignedinteger]]] = []
    for size in np.unique(sizes).tolist():
        alike = np.flatnonzero(sizes == size)
        for rows in np.array_split(alike, -(-len(alike) * size**2 // CHUNK_PAIRS)):
            atoms = samples.offset[rows][:, None] + np.arange(size)
            near, closest = _pairs(samples.position[atoms].astype(np.float64), neighbors.cutoff)
            close[rows] = closest < MIN_DISTANCE
            degree[atoms] = near.sum(axis=2)
            count[rows] = near.sum(axis=(1, 2))
            if neighbors.store:
                found.append((rows, near.nonzero()[2].astype(np.min_scalar_type(size))))
    start = offsets(count)
    sender = np.empty(start[-1] if found else 0, dtype=np.min_scalar_type(int(sizes.max())))
    for rows, senders in found:
        # Within the chunk the edges stand sample by sample, in the whole shard others come between.
        shift = start[rows] - (np.cumsum(count[rows]) - count[rows])
        sender[np.arange(len(senders)) + np.repeat(shift, count[rows])] = senders
    return FlatEdges(count, degree, sender, close)


def _pairs(position: NDArray[np.float64], cutoff: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Pairs within the cutoff, [clouds, receiver, sender], and the smallest distance among these, [clouds]."""
    difference = position[:, None, :] - position[:, :, None]
    distance = np.sqrt(np.einsum("crsi,crsi->crs", difference, difference))
    itself = np.arange(position.shape[1])
    distance[:, itself, itself] = np.inf
    return distance <= cutoff + TIE_TOLERANCE, distance.min(axis=(1, 2))


def _complete(sizes: NDArray[np.int64], *, with_senders: bool) -> FlatEdges:
    """Every atom of a sample with every other one."""
    sender = senders_of_all_pairs(sizes if with_senders else sizes[:0])
    degree = np.repeat((sizes - 1).astype(np.uint16), sizes)
    return FlatEdges(sizes * (sizes - 1), degree, sender, np.zeros(len(sizes), dtype=np.bool_))


def _doubtful(samples: FlatSamples, radius: NDArray[np.float64], cutoff: float) -> NDArray[np.bool_]:
    """Samples that may have a fault other than atoms that coincide: [n]."""
    number = samples.atomic_number
    strange = np.logical_or.reduceat((number < 1) | (number > MAX_ATOMIC_NUMBER), samples.offset[:-1])
    for column in samples.targets.values():
        if column.dtype.kind == "f":
            strange |= ~np.isfinite(column)
    # A radius that is not a number is not within the limit either.
    return np.asarray(strange | ~(radius <= min(MAX_COORDINATE, MAX_REACH * cutoff)))


def _structure(samples: FlatSamples, row: int) -> Structure:
    atoms = slice(samples.offset[row], samples.offset[row + 1])
    return Structure(
        id=samples.id[row].decode(),
        atomic_number=samples.atomic_number[atoms],
        position=samples.position[atoms],
        cell=np.zeros((3, 3), dtype=np.float32),
        pbc=np.zeros(3, dtype=np.bool_),
        targets={name: column[row].item() for name, column in samples.targets.items() if column.ndim == 1},
    )


def _fault(structure: Structure, cutoff: float) -> str | None:
    fault = structure.fault()
    if fault is not None:
        return fault
    try:
        radius_graph(structure, cutoff)
    except NeighborError as error:
        return str(error)
    return None


def _usable_samples(samples: FlatSamples, usable: NDArray[np.bool_]) -> FlatSamples:
    sizes = np.diff(samples.offset)
    atoms = np.repeat(usable, sizes)
    identifiers = samples.id[usable]
    return FlatSamples(
        id=identifiers.astype(f"S{np.char.str_len(identifiers).max()}"),
        atomic_number=samples.atomic_number[atoms],
        position=samples.position[atoms],
        offset=offsets(sizes[usable]),
        split=samples.split[usable],
        targets={name: column[usable] for name, column in samples.targets.items()},
        apart=samples.apart,
    )


def _usable_edges(edges: FlatEdges, sizes: NDArray[np.int64], usable: NDArray[np.bool_]) -> FlatEdges:
    sender = edges.sender[np.repeat(usable, edges.count)] if len(edges.sender) else edges.sender
    return FlatEdges(edges.count[usable], edges.degree[np.repeat(usable, sizes)], sender, edges.close[usable])
