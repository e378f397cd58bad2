"""Does a cloud have a symmetry beyond the group that made it?

A cloud of generic orbits may by accident come near a higher symmetry: two rings at almost the same height,
two axes of almost the same length. Instead of a list of accidents for every family, every isometry that could
be an extra symmetry is tried. There are few, because a group acts on its orbits transitively and without
fixed points:

- Let a be the seed point farthest from the centroid, and h an extra symmetry. h(a) lies in some orbit;
  followed by the operation that takes it to the seed point of that orbit, h is still an extra symmetry. So
  h(a) is a seed point.
- Let b be the atom with the largest distance from the line through the centroid and a. |h(b)| = |b| and
  |h(b) - h(a)| = |b - a| leave few atoms as the image of b: the distances from seed points to atoms decide.
- The images of a and b and the handedness fix h. Only a to a, b to b, proper is the identity.
- h must take every atom to an atom of the same kind. A third atom c, the farthest from the plane of a and b,
  sifts out most candidates; all atoms are tried for the rest.

With atoms off by at most `tolerance` (each atom within it of its image), distances are off by at most twice
as much. To first order, h taken from the images of a and b alone is off by no more than four times as much at
any atom: once from the direction of a, since no atom is farther from the centroid; twice from the turn about
it, since no atom is farther from its line; once for the atom itself. Six times is allowed, so no symmetry
within the tolerance escapes; some clouds that are merely close to one are named too, which costs a redraw and
no more.

Every sum has a fixed order, that of a centroid by the number of its atoms alone. So a cloud gets the same answer
alone and among others.
"""

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.ragged import lengths
from matsci_hpc.sources.clouds import Clouds, Floats, Integers, SeedPairs, dots, first_maximum, products, ranges


def has_extra_symmetry(clouds: Clouds, pairs: SeedPairs, tolerance: float) -> NDArray[np.bool_]:
    """Which clouds have, within a tolerance, an isometry outside the group that made them.

    Args:
        clouds: clouds of generic orbits.
        pairs: their `seed_pairs`.
        tolerance: how far an atom may lie from where the isometry takes it, in the unit of the positions.

    Returns:
        bool [clouds].
    """
    start, cloud = clouds.atom_start, clouds.atom_cloud
    centroid = np.add.reduceat(clouds.position, start[:-1]) / lengths(start)[:, None]
    x = clouds.position - centroid[cloud]
    radius = _norm(x)
    first_orbit = first_maximum(radius[clouds.orbit_atom], clouds.orbit_start)
    a = clouds.orbit_atom[first_orbit]
    b = first_maximum(_norm(_cross(x[a][cloud], x)), start)

    orbit, image = _images(clouds, pairs, radius, a, b, tolerance)
    which = clouds.orbit_cloud[orbit]
    identity = (orbit == first_orbit[which]) & (image == b[which])
    here = _frame(x[a], x[b])[which]
    there = _frame(x[clouds.orbit_atom[orbit]], x[image])
    turned = np.stack([products(there, here[:, row]) for row in range(3)], axis=2)
    # Reflecting in the plane of a and b gives the isometry of the other handedness.
    mirrored = turned - 2 * there[:, :, 2, None] * here[:, None, :, 2]
    isometry = np.concatenate([turned[~identity], mirrored])
    which = np.concatenate([which[~identity], which])

    c = first_maximum(np.abs(dots(_cross(x[a], x[b])[cloud], x)), start)
    reach = 6 * tolerance
    moved = products(isometry, x[c[which]])
    likely = _lands(clouds, x, moved, clouds.kind[c[which]], which, reach)
    isometry, which = isometry[likely], which[likely]

    # A cloud on a line has no frame; it turns about the line.
    extra = np.asarray(_norm(_cross(x[a], x[b])) <= 3 * tolerance * radius[a])
    if len(which):
        atoms = lengths(start)[which]
        atom = ranges(start[which], atoms)
        moved = products(np.repeat(isometry, atoms, axis=0), x[atom])
        landed = _lands(clouds, x, moved, clouds.kind[atom], np.repeat(which, atoms), reach)
        extra[which[np.logical_and.reduceat(landed, np.cumsum(atoms) - atoms)]] = True
    return extra


def _images(
    clouds: Clouds, pairs: SeedPairs, radius: Floats, a: Integers, b: Integers, tolerance: float
) -> tuple[Integers, Integers]:
    """Orbits whose seed point can be the image of a, each with an atom that can be the image of b."""

    def alike(atoms: Integers, owner: Integers, model: Integers) -> NDArray[np.bool_]:
        same_kind = clouds.kind[atoms] == clouds.kind[model][owner]
        return np.asarray(same_kind & (np.abs(radius[atoms] - radius[model][owner]) <= tolerance))

    like_a = alike(clouds.orbit_atom, clouds.orbit_cloud, a)
    like_b = alike(np.arange(len(radius)), clouds.atom_cloud, b)
    chosen = np.flatnonzero(like_a[pairs.orbit] & like_b[pairs.atom])
    orbit, atom = pairs.orbit[chosen], pairs.atom[chosen]
    apart = _norm(clouds.position[a] - clouds.position[b])
    fits = np.abs(pairs.distance[chosen] - apart[clouds.orbit_cloud[orbit]]) <= 2 * tolerance
    return orbit[fits], atom[fits]


def _lands(
    clouds: Clouds, x: Floats, moved: Floats, kind: Integers, which: Integers, reach: float
) -> NDArray[np.bool_]:
    """Whether each moved atom lies within reach of an atom of the same kind in its cloud: [moved]."""
    if not len(which):
        return np.zeros(0, dtype=np.bool_)
    atoms = lengths(clouds.atom_start)[which]
    atom = ranges(clouds.atom_start[which], atoms)
    difference = x[atom]
    difference -= np.repeat(moved, atoms, axis=0)
    close = dots(difference, difference) <= reach**2
    close &= clouds.kind[atom] == np.repeat(kind, atoms)
    return np.asarray(np.logical_or.reduceat(close, np.cumsum(atoms) - atoms))


def _frame(u: Floats, v: Floats) -> Floats:
    """Orthonormal frame: along u, towards v, across both. Two [n, 3] to [n, 3, 3], the vectors in columns."""
    tiny = np.finfo(np.float64).tiny
    along = u / np.maximum(_norm(u), tiny)[:, None]
    across = _cross(along, v)
    across /= np.maximum(_norm(across), tiny)[:, None]
    frame = np.empty((len(u), 3, 3))
    frame[:, :, 0], frame[:, :, 1], frame[:, :, 2] = along, _cross(across, along), across
    return frame


def _cross(u: Floats, v: Floats) -> Floats:
    """Vector product of rows; numpy's own takes three times as long on short rows."""
    across = np.empty(np.broadcast_shapes(u.shape, v.shape))
    for axis, (one, other) in enumerate(((1, 2), (2, 0), (0, 1))):
        np.subtract(u[:, one] * v[:, other], u[:, other] * v[:, one], out=across[:, axis])
    return across


def _norm(vectors: Floats) -> Floats:
    return np.asarray(np.sqrt(dots(vectors, vectors)))
