"""Symmetry operations on fractional coordinates: the images of sites, each place once, as pymatgen finds them."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAME = 1e-4
"""Fractional coordinates in which pymatgen takes two places for one. Distances near it are left to it."""
SITES_APART = 10 * SAME
"""What is farther apart than this stays apart by more than SAME under two operations in turn, too."""
MOST_OPERATIONS = 192
_CIRCLE = 2.0**32
"""Coordinates as integers of 32 bits wrap around as a cell does, and so do their differences."""
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Operations:
    """A group of symmetry operations.

    Attributes:
        matrix: float64 [operations, 4, 4], acting on (x, y, z, 1).
        long: numbers of those with three terms or more in a row: their rounding depends on the order of the sum.
    """

    matrix: NDArray[np.float64]
    long: tuple[int, ...]


IDENTITY = Operations(np.eye(4)[np.newaxis], ())


@functools.lru_cache(maxsize=1024)
def operations(texts: tuple[str, ...]) -> Operations | None:
    """Operations such as `-y, x-y, z+1/3`, read by pymatgen; None unless they are a group of usual ones."""
    from pymatgen.core.operations import SymmOp

    try:
        matrix = np.array([SymmOp.from_xyz_str(each).affine_matrix for each in texts])
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    if not 1 <= len(texts) <= MOST_OPERATIONS or not _is_group(matrix):
        return None
    if len(texts) == 1:
        return IDENTITY
    terms = np.count_nonzero(matrix[:, :3], axis=2).max(axis=1)
    return Operations(matrix, tuple(np.flatnonzero(terms > 2).tolist()))


def _is_group(matrix: NDArray[np.float64]) -> bool:
    """Whether these are turns by whole numbers and moves by 24ths, and the product of any two is one of them."""
    turn, move = matrix[:, :3, :3], matrix[:, :3, 3]
    if not np.isin(turn, (-1, 0, 1)).all() or (np.signbit(matrix) & (matrix == 0)).any():
        return False
    if not (np.rint(np.abs(np.linalg.det(turn))) == 1).all():  # a damaged one may map all to one plane
        return False
    steps = np.rint(24 * move)
    if not (np.abs(24 * move - steps) < 0.01).all():  # decimals such as 0.3333 are rounded
        return False
    products = np.einsum("aij,bjk->abik", turn, turn).reshape(-1, 3, 3)
    moves = (np.einsum("aij,bj->abi", turn, steps) + steps[:, np.newaxis]).reshape(-1, 3)
    known = set(_codes(turn, steps).tolist())
    return len(known) == len(matrix) and known.issuperset(np.unique(_codes(products, moves)).tolist())


def _codes(turn: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """A number for each operation, the same for those that differ by lattice vectors."""
    digits = np.concatenate([turn.reshape(-1, 9) + 3, np.mod(steps, 24)], axis=1).astype(np.int64)
    codes: NDArray[np.int64] = digits @ (24 ** np.arange(12, dtype=np.int64))
    return codes


def all_images(
    symmetry: Operations, fraction: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None] | None:
    """Every different image of every site, site by site in the order of the operations.

    Args:
        symmetry: the operations.
        fraction: float64 [sites, 3].

    Returns:
        Coordinates from 0 to 1, float64 [images, 3], and how many images each site has (None: one each); or None
        where two sites share a place or it is doubtful whether two images do.
    """
    if symmetry is IDENTITY:
        if np.count_nonzero(_close(fraction, fraction, SITES_APART)) != len(fraction):
            return None
        return _wrapped(fraction + 0.0), None  # as the product with the identity, which makes zeros positive
    point = np.concatenate([fraction, np.ones((len(fraction), 1))], axis=1)
    image = (point @ symmetry.matrix[:, :3].reshape(-1, 4).T).reshape(len(point), -1, 3)
    for number in symmetry.long:
        for site, each in enumerate(point):
            image[site, number] = np.dot(symmetry.matrix[number], each)[:3]
    image = _wrapped(image)
    meets = _close(image.reshape(-1, 3), fraction, SITES_APART).reshape(len(point), -1, len(point)).any(axis=1)
    if np.count_nonzero(meets) != len(point):
        return None
    first = _first_of_place(image)
    if first is None:
        return None
    return image[first], first.sum(axis=1)


def _first_of_place(image: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which images [sites, operations] are the first of their site at their place; None if that is doubtful."""
    sites, count, _ = image.shape
    found = np.empty((sites, count), dtype=bool)
    step = max(1, _AT_ONCE // count**2)
    for start in range(0, sites, step):
        some = image[start : start + step]
        same = _close(some, some, SAME / 2)
        if np.count_nonzero(same) != np.count_nonzero(_close(some, some, 2 * SAME)):
            return None
        found[start : start + step] = same.argmax(axis=2) == np.arange(count)
    return found


def _close(first: NDArray[np.float64], second: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Which points of [..., n, 3] and [..., m, 3] agree in each coordinate but for whole numbers: bool [..., n, m]."""
    reach = np.uint32(tolerance * _CIRCLE)
    ours, theirs = _on_circle(first), _on_circle(second) - reach
    close = (ours[..., :, np.newaxis, 0] - theirs[..., np.newaxis, :, 0]) <= 2 * reach
    for axis in (1, 2):
        close &= (ours[..., :, np.newaxis, axis] - theirs[..., np.newaxis, :, axis]) <= 2 * reach
    return close


def _on_circle(fraction: NDArray[np.float64]) -> NDArray[np.uint32]:
    return (_wrapped(fraction) * _CIRCLE).astype(np.int64).astype(np.uint32)


def _wrapped(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    return fraction - np.floor(fraction)
