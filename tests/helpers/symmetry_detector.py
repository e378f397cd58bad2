"""Counts the isometries of a typed cloud by brute force, knowing nothing of groups, orbits or its making."""

import math

import numpy as np


def count_isometries(position, kind, tolerance=1e-3):
    """Number of isometries, proper and improper, that take a cloud to itself and fix its centroid.

    As many atoms as the cloud has dimensions, chosen to span much, are taken to all atoms that have the same
    kinds and distances. Each such map is fitted, the other atoms assigned to their images, the fit repeated
    with all atoms, and the map counted if no atom is off by more than the tolerance.

    Args:
        position: [atoms, 3].
        kind: [atoms], integers; only atoms of the same kind can change places.
        tolerance: in the unit of the positions.

    Returns:
        The number; infinity for a cloud on a line or in a point.
    """
    kind = np.asarray(kind).astype(int)
    x = np.asarray(position, dtype=float)
    x = x - x.mean(axis=0)
    principal = np.linalg.svd(x)[2]
    extent = np.abs(x @ principal.T).max(axis=0)
    dimensions = int((extent > tolerance).sum())
    if dimensions < 2:
        return math.inf
    # The mirror in the plane of a flat cloud moves no atom: every map counts twice.
    maps = _permutations(x @ principal[:dimensions].T, kind, tolerance)
    return len(maps) * (2 if dimensions == 2 else 1)


def _permutations(x, kind, tolerance):
    dimensions = x.shape[1]
    base = _spanning_atoms(x)
    radius = np.linalg.norm(x, axis=1)
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    alike = [(kind == kind[atom]) & (np.abs(radius - radius[atom]) <= tolerance) for atom in base]
    images = np.flatnonzero(alike[0])[:, None]
    for level in range(1, dimensions):
        fits = np.repeat(alike[level][None], len(images), axis=0)
        for earlier in range(level):
            wanted = distance[base[earlier], base[level]]
            fits &= np.abs(distance[images[:, earlier]] - wanted) <= 2 * tolerance
        row, atom = np.nonzero(fits)
        images = np.concatenate([images[row], atom[:, None]], axis=1)
    maps = _fit(np.broadcast_to(x[base], (len(images), dimensions, dimensions)), x[images])
    moved = np.einsum("cij,aj->cai", maps, x)
    gap = np.linalg.norm(moved[:, :, None] - x[None, None], axis=3)
    gap[:, kind[:, None] != kind[None, :]] = np.inf
    image = gap.argmin(axis=2)
    bijective = (np.sort(image, axis=1) == np.arange(len(x))).all(axis=1)
    image = np.unique(image[bijective], axis=0)
    maps = _fit(np.broadcast_to(x, (len(image), *x.shape)), x[image])
    error = np.linalg.norm(np.einsum("cij,aj->cai", maps, x) - x[image], axis=2).max(axis=1)
    return image[error <= tolerance]


def _spanning_atoms(x):
    """Greedy choice: each atom is the farthest from the span of those before it."""
    rest, chosen = x.copy(), []
    for _ in range(x.shape[1]):
        atom = int(np.linalg.norm(rest, axis=1).argmax())
        unit = rest[atom] / np.linalg.norm(rest[atom])
        rest = rest - np.outer(rest @ unit, unit)
        chosen.append(atom)
    return chosen


def _fit(source, target):
    """Orthogonal matrices of the least squares fits source -> target, both [maps, atoms, dimensions]."""
    left, _, right = np.linalg.svd(np.einsum("cai,caj->cij", target, source))
    return left @ right
