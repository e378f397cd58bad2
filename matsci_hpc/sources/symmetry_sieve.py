"""Which clouds might have a symmetry beyond the group that made them? A quick test that lets none escape.

`extra_symmetry` decides; this sieve spares it the clouds that cannot have an extra symmetry h. Let A be the orbit
farthest from the centroid and a its seed point; where no two orbits have the same kind and radius, h takes every
orbit to itself, and followed by an operation of the group it takes a to itself. Let b be the atom farthest from the
line through the centroid and a, and c the atom farthest from the plane of these three (outside A, where there is
another orbit). Then h takes b to some b' of the same orbit and c to some c', with

    |b' - a| = |b - a|,   |c' - a| = |c - a|,   |c' - b'| = |c - b|

and (b', c') is not (b, c): an isometry that keeps a, b, c and the centroid is the identity. All distances follow
from those of the seed points, since the distance of two atoms p s and q t is that of s and (p^-1 q) t.

Suspects are the clouds with such a pair, those with orbits alike, and those so near to a line or a plane that h could
keep a, b and c. Outside A is where c has to be: the inverse of an operation gives an atom of A at the same distance
from a, so that in commutative groups two atoms of A always have such a pair.
"""

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.ragged import lengths
from matsci_hpc.sources.clouds import Integers, first_maximum, ranges
from matsci_hpc.sources.exact_random import Single, squared_norm
from matsci_hpc.sources.orbits import GroupsOfOrder, OrbitClouds, centroids

ROUNDING = 2e-5
"""Allowance for single precision, on radii and distances of order 1."""


def suspects(groups: GroupsOfOrder, clouds: OrbitClouds, tolerance: float) -> NDArray[np.bool_]:
    """Which clouds could have an isometry outside their group, all atoms within a tolerance: bool [n].

    Args:
        groups: the groups of the clouds.
        clouds: clouds scaled to radius 1.
        tolerance: as of `extra_symmetry.has_extra_symmetry`. That one also names clouds merely close to an extra
            symmetry, up to six times the tolerance; such clouds need not be suspects here, and keep their label.
    """
    start, cloud = clouds.start, clouds.cloud
    orbits = lengths(start)
    x: Single = clouds.position - centroids(groups, clouds).take(cloud, axis=1)[:, None]
    squared_radius = squared_norm(x[:, 0])
    orbit_a = first_maximum(squared_radius, start)
    a = x[:, 0].take(orbit_a, axis=1)
    from_a = squared_norm(x - a.take(cloud, axis=1)[:, None])
    # By the theorem of Pythagoras and that of cosines.
    along = (squared_radius + squared_radius[orbit_a][cloud] - from_a) / (2 * np.sqrt(squared_radius[orbit_a]))[cloud]
    from_line = squared_radius - along * along
    b, far_from_line = _farthest(from_line, start)
    from_plane = np.square(_heights(x, a, b, cloud))
    # Where A is the only orbit it is taken after all.
    from_plane[:, orbit_a[orbits > 1]] = -1
    c, far_from_plane = _farthest(from_plane, start)
    narrow = (6 * tolerance + 10 * ROUNDING) ** 2
    # An atom's distance from the line is imprecise only where it is small.
    doubtful = _alike(clouds, squared_radius, tolerance) | (far_from_line < narrow) | (far_from_plane < narrow)
    return doubtful | _other_pairs(groups, clouds, x, np.sqrt(from_a), b, c, 2 * tolerance + ROUNDING)


Atoms = tuple[Integers, Integers]
"""An atom of each cloud: operation and orbit."""


def _farthest(value: Single, start: Integers) -> tuple[Atoms, Single]:
    """Atom with the largest value in each cloud, and the value; [g, K]."""
    largest = value.max(axis=0)
    orbit = first_maximum(largest, start)
    return (value.take(orbit, axis=1).argmax(axis=0), orbit), largest[orbit]


def _heights(x: Single, a: Single, b: Atoms, cloud: Integers) -> Single:
    """Signed distance of every atom from the plane of the centroid, a and b: [g, K]."""
    beyond = x[:, b[0], b[1]]
    normal = np.empty_like(a)
    for axis, (one, other) in enumerate(((1, 2), (2, 0), (0, 1))):
        np.subtract(a[one] * beyond[other], a[other] * beyond[one], out=normal[axis])
    normal /= np.sqrt(np.maximum(squared_norm(normal), np.finfo(np.float32).tiny))
    normal = normal.take(cloud, axis=1)
    height = x[0] * normal[0]
    height += x[1] * normal[1]
    height += x[2] * normal[2]
    return np.asarray(height)


def _alike(clouds: OrbitClouds, squared_radius: Single, tolerance: float) -> NDArray[np.bool_]:
    """Clouds with two orbits of one kind and, within the tolerance, one radius: [n]."""
    # Sorted by cloud and kind; orbits of one kind in a cloud are so few that the rest is done for these alone.
    key = clouds.cloud * 256 + clouds.kind
    key.sort()
    shared = np.zeros(len(clouds.group), dtype=np.bool_)
    shared[key[1:][key[1:] == key[:-1]] >> 8] = True
    which = np.flatnonzero(shared)
    alike = np.zeros(len(shared), dtype=np.bool_)
    orbit = ranges(clouds.start[which], lengths(clouds.start)[which])
    partners = clouds.start[clouds.cloud[orbit] + 1] - orbit - 1
    first, second = np.repeat(orbit, partners), ranges(orbit + 1, partners)
    radius = np.sqrt(squared_radius)
    near = np.abs(radius[first] - radius[second]) <= tolerance + ROUNDING
    alike[clouds.cloud[first[near & (clouds.kind[first] == clouds.kind[second])]]] = True
    return alike


def _other_pairs(
    groups: GroupsOfOrder, clouds: OrbitClouds, x: Single, from_a: Single, b: Atoms, c: Atoms, margin: float
) -> NDArray[np.bool_]:
    """Clouds with a pair (b', c') as the module's text has it, other than (b, c): [n]."""
    like_b = from_a.take(b[1], axis=1)
    like_b = np.abs(like_b - like_b[b[0], np.arange(len(b[0]))]) <= margin
    like_c = from_a.take(c[1], axis=1)
    like_c = np.abs(like_c - like_c[c[0], np.arange(len(c[0]))]) <= margin
    from_b_seed = np.sqrt(squared_norm(x.take(c[1], axis=2) - x[:, 0].take(b[1], axis=1)[:, None]))
    wanted = from_b_seed[groups.quotient[clouds.group, b[0], c[0]], np.arange(len(b[0]))]
    operation, which = np.nonzero(like_b)
    apart = from_b_seed[groups.quotient[clouds.group[which], operation].T, which]
    fits = (np.abs(apart - wanted[which]) <= margin) & like_c.take(which, axis=1)
    same = np.flatnonzero(operation == b[0][which])
    fits[c[0][which[same]], same] = False
    found = np.zeros(len(clouds.group), dtype=np.bool_)
    found[which[fits.any(axis=0)]] = True
    return found
