"""Point groups as stacks of 3x3 matrices, built from generators.

A point group is named by its Schoenflies symbol. Every name here is one class of finite subgroups of O(3) up
to conjugacy, and no class has two names: S3 is C3h, D1h is C2v, S2 is Ci, and only the latter of each is
known.

| family | generators | order |
|---|---|---|
| C1, Cs, Ci | none; mirror xy; inversion | 1, 2, 2 |
| Cn | rotation by 1/n turn about z | n |
| Cnv | the same, mirror xz | 2n |
| Cnh | the same, mirror xy | 2n |
| S2n | rotation by 1/2n turn about z followed by mirror xy (n >= 2) | 2n |
| Dn | rotation by 1/n turn about z, half turn about x | 2n |
| Dnh | the same, mirror xy | 4n |
| Dnd | those of S2n, half turn about x | 4n |
| T, Th | 1/3 turn about [111], half turn about z; inversion for Th | 12, 24 |
| Td | 1/3 turn about [111], 1/4 turn about z followed by mirror xy | 24 |
| O, Oh | 1/3 turn about [111], 1/4 turn about z; inversion for Oh | 24, 48 |
| I, Ih | 1/3 turn about [111], 1/5 turn about [0, 1, golden ratio]; inversion for Ih | 60, 120 |

Source: any text on crystallography, such as International Tables for Crystallography, volume A, section 3.2.
"""

import difflib
import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import UserInputError

Matrices = NDArray[np.float64]
Signature = tuple[tuple[int, int, int], ...]

CRYSTALLOGRAPHIC = (
    *("C1", "Ci", "C2", "Cs", "C2h", "D2", "C2v", "D2h"),
    *("C4", "S4", "C4h", "D4", "C4v", "D2d", "D4h"),
    *("C3", "S6", "D3", "C3v", "D3d"),
    *("C6", "C3h", "C6h", "D6", "C6v", "D3h", "D6h"),
    *("T", "Th", "O", "Td", "Oh"),
)
"""From triclinic and monoclinic over orthorhombic, tetragonal, trigonal and hexagonal to cubic."""

_SPECIAL_ORDERS = {"Cs": 2, "Ci": 2, "T": 12, "Td": 24, "Th": 24, "O": 24, "Oh": 48, "I": 60, "Ih": 120}
_ORDER_OVER_N = {"C": 1, "Cv": 2, "Ch": 2, "S": 1, "D": 2, "Dh": 4, "Dd": 4}
_FAMILIES = {
    "C": "Cn", "Cv": "Cnv", "Ch": "Cnh", "Cs": "Cnh", "S": "S2n", "Ci": "S2n", "D": "Dn", "Dh": "Dnh", "Dd": "Dnd",
    "T": "cubic", "Td": "cubic", "Th": "cubic", "O": "cubic", "Oh": "cubic", "I": "icosahedral", "Ih": "icosahedral",
}  # fmt: skip
FAMILIES = tuple(dict.fromkeys(_FAMILIES.values()))
"""Families of point groups, as `family` names them."""
_ALIASES = {"S1": "Cs", "C1v": "Cs", "C1h": "Cs", "S2": "Ci", "D1": "C2", "D1h": "C2v", "D1d": "C2h"}
_SAME = 1e-6
"""Two matrices whose entries differ by less are the same element."""


def crystallographic() -> tuple[str, ...]:
    """Names of the 32 point groups that a lattice in three dimensions can have."""
    return CRYSTALLOGRAPHIC


def all_groups(max_axial_order: int) -> tuple[str, ...]:
    """Names of every point group up to an axial order, the cubic and icosahedral ones included.

    The order is the number in the name, so that 12 gives C12, D12d and S12, but not S14.
    """
    axial = []
    for n in range(2, max_axial_order + 1):
        axial += [f"C{n}", f"C{n}v", f"C{n}h"]
        axial += [f"S{n}"] if n % 2 == 0 and n >= 4 else []
        axial += [f"D{n}", f"D{n}h", f"D{n}d"]
    return ("C1", "Cs", "Ci", *axial, "T", "Td", "Th", "O", "Oh", "I", "Ih")


def family(name: str) -> str:
    """One of `FAMILIES`: groups of the same kinds of generators, whatever the order of their axis.

    Cs, which is C1h, is of Cnh, and Ci, which is S2, of S2n.

    Args:
        name: Schoenflies symbol.

    Raises:
        UserInputError: the name is not known; the nearest known one is named.
    """
    return _FAMILIES[_parse(name)[0]]


def order(name: str) -> int:
    """Number of operations, without building them."""
    family, n = _parse(name)
    return _SPECIAL_ORDERS[family] if family in _SPECIAL_ORDERS else n * _ORDER_OVER_N[family]


def minimum_orbits(name: str) -> int:
    """Smallest number of generic orbits whose union has exactly the symmetry `name`, not more.

    A generic orbit is the image of one point that no operation but the identity fixes.

    - C1 needs 4: three points lie in a plane, which is a mirror.
    - Cs needs 3: two mirrored pairs are a planar trapezoid (C2v).
    - Ci needs 3: two inverted pairs are a planar parallelogram (C2h).
    - Cn and Cnv need 2: one orbit is a planar polygon (Dnh; for n = 2 in C2, a line).
    - Cnh needs 2: one orbit is a prism over a regular polygon (Dnh).
    - S2n needs 2: one orbit is a regular antiprism (Dnd).
    - Every other group has a twist, a distance from a mirror or both that one generic point makes its own.

    The tests prove each case with a detector that knows nothing of groups.
    """
    family, n = _parse(name)
    if family in ("Cs", "Ci"):
        return 3
    if family == "C" and n == 1:
        return 4
    return 2 if family in ("C", "Cv", "Ch", "S") else 1


def minimum_atoms(name: str) -> int:
    """Fewest atoms of a cloud with exactly the symmetry `name`, all of them in generic positions."""
    return minimum_orbits(name) * order(name)


@cache
def matrices(name: str) -> Matrices:
    """All operations of a point group.

    Args:
        name: Schoenflies symbol.

    Returns:
        float64 [order, 3, 3], read-only, the identity first; they act on column vectors.

    Raises:
        UserInputError: the name is not known; the nearest known one is named.
        RuntimeError: the generators do not give a group of the expected order.
    """
    family, n = _parse(name)
    expected = order(name)
    elements = _closure(_generators(family, n), limit=expected)
    if len(elements) != expected:
        raise RuntimeError(f"generators of {name} give {len(elements)} operations, not {expected}")
    elements.flags.writeable = False
    return elements


def signature(group: Matrices) -> Signature:
    """Class of a finite matrix group up to rotation in space: how often which kind of operation occurs.

    An operation is (determinant, angle); for an improper one the angle is that of the rotation before the
    mirror. From trace = 2 cos(angle) + determinant, and every angle is a multiple of turn / (2 * order): by
    Lagrange the order of an operation divides the order of the group.

    Args:
        group: float64 [order, 3, 3], every operation once.

    Returns:
        Sorted (determinant, angle in units of turn / (2 * order), count).
    """
    determinant = np.rint(np.linalg.det(group)).astype(int)
    cosine = np.clip((np.trace(group, axis1=1, axis2=2) - determinant) / 2, -1.0, 1.0)
    step = np.rint(np.arccos(cosine) * len(group) / np.pi).astype(int)
    kinds, counts = np.unique(np.stack([determinant, step], axis=1), axis=0, return_counts=True)
    return tuple((int(kind[0]), int(kind[1]), int(count)) for kind, count in zip(kinds, counts, strict=True))


def classify(group: Matrices) -> str:
    """Name of a finite matrix group in any orientation.

    Args:
        group: float64 [order, 3, 3], every operation once.

    Raises:
        ValueError: no point group has these operations, so the matrices are not a group.
    """
    name = _names_by_signature(len(group)).get(signature(group))
    if name is None:
        raise ValueError(f"{len(group)} matrices that are no point group")
    return name


@cache
def _names_by_signature(size: int) -> dict[Signature, str]:
    names = [name for name, special in _SPECIAL_ORDERS.items() if special == size]
    for family, factor in _ORDER_OVER_N.items():
        n, rest = divmod(size, factor)
        name = f"{family[0]}{n}{family[1:]}"
        if rest == 0 and _is_axial(family, n):
            names.append(name)
    return {signature(matrices(name)): name for name in names}


def _is_axial(family: str, n: int) -> bool:
    if family == "C":
        return n >= 1
    if family == "S":
        return n >= 4 and n % 2 == 0
    return family in _ORDER_OVER_N and n >= 2


def _parse(name: str) -> tuple[str, int]:
    """Family (its name without the number) and number (0 where there is none)."""
    if name in _SPECIAL_ORDERS:
        return name, 0
    match = re.fullmatch(r"([CDS])([1-9][0-9]{0,3})([vhd]?)", name)
    if match and _is_axial(match[1] + match[3], int(match[2])):
        return match[1] + match[3], int(match[2])
    raise UserInputError(f"no point group is named {name!r}: {_advice(name)}")


def _advice(name: str) -> str:
    odd = re.fullmatch(r"S([1-9][0-9]*[13579]|[3579])", name)
    same = f"C{odd[1]}h" if odd else _ALIASES.get(name)
    if same:
        return f"this group is {same}"
    # The case is left out of the comparison: c2v is nearer to C2v than to any other name.
    known = {other.lower(): other for other in all_groups(24)}
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
    return f"the nearest known one is {known[nearest[0]]}"


def _generators(family: str, n: int) -> list[Matrices]:
    mirror_xy, mirror_xz = np.diag([1.0, 1.0, -1.0]), np.diag([1.0, -1.0, 1.0])
    half_x, half_z = np.diag([1.0, -1.0, -1.0]), np.diag([-1.0, -1.0, 1.0])
    inversion = -np.eye(3)
    if family in _ORDER_OVER_N:
        around = rotation((0.0, 0.0, 1.0), 1.0 / n)
        return {
            "C": [around],
            "Cv": [around, mirror_xz],
            "Ch": [around, mirror_xy],
            "S": [around @ mirror_xy],
            "D": [around, half_x],
            "Dh": [around, half_x, mirror_xy],
            "Dd": [rotation((0.0, 0.0, 1.0), 0.5 / n) @ mirror_xy, half_x],
        }[family]
    third = rotation((1.0, 1.0, 1.0), 1 / 3)
    quarter = rotation((0.0, 0.0, 1.0), 1 / 4)
    fifth = rotation((0.0, 1.0, (1 + np.sqrt(5)) / 2), 1 / 5)
    return {
        "Cs": [mirror_xy],
        "Ci": [inversion],
        "T": [third, half_z],
        "Td": [third, quarter @ mirror_xy],
        "Th": [third, half_z, inversion],
        "O": [third, quarter],
        "Oh": [third, quarter, inversion],
        "I": [third, fifth],
        "Ih": [third, fifth, inversion],
    }[family]


def rotation(axis: tuple[float, float, float], turns: float) -> Matrices:
    """Rotation about an axis through the origin, by the formula of Rodrigues.

    Args:
        axis: direction, of any length but zero.
        turns: angle in full turns, counter-clockwise seen from the tip of the axis.

    Returns:
        float64 [3, 3].
    """
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = 2 * np.pi * turns
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _closure(generators: list[Matrices], limit: int) -> Matrices:
    """Every product of the generators; stops with an error beyond `limit` elements."""
    elements = np.empty((limit, 3, 3))
    elements[0] = np.eye(3)
    count, done = 1, 0
    while done < count:
        for generator in generators:
            product = elements[done] @ generator
            if np.abs(elements[:count] - product).max(axis=(1, 2)).min() < _SAME:
                continue
            if count == limit:
                raise RuntimeError(f"more than {limit} products of the generators: not the group meant")
            elements[count] = product
            count += 1
        done += 1
    return elements[:count]
