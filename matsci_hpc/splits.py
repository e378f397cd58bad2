"""Which split a sample belongs to, where its source does not say."""

from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from matsci_hpc.structure import Structure

SplitBy = Literal["id", "formula"]
"""What is hashed: the id of a sample, or its reduced formula, so that no formula is in two splits."""


def split_for(structure: Structure, shares: dict[str, float], split_by: SplitBy) -> str:
    """The split of a sample, the same whatever other samples there are.

    Args:
        structure: of the sample.
        shares: share of each split, adding up to 1.
        split_by: what decides.
    """
    key = structure.id if split_by == "id" else reduced_formula(structure.atomic_number)
    return split_of(key, shares)


def reduced_formula(atomic_number: NDArray[np.uint8]) -> str:
    """Elements with their smallest whole proportions, such as `8:2 22:1` for TiO2.

    Args:
        atomic_number: uint8 [atoms], at least one.
    """
    counts = np.bincount(atomic_number)
    elements = np.flatnonzero(counts)
    proportions = counts[elements] // np.gcd.reduce(counts[elements])
    return " ".join(f"{z}:{n}" for z, n in zip(elements.tolist(), proportions.tolist(), strict=True))


def split_of(identifier: str, shares: dict[str, float]) -> str:
    """The split of a sample by a hash of its id: the same whatever other samples there are.

    Args:
        identifier: id of the sample.
        shares: share of each split, adding up to 1.
    """
    point = xxhash.xxh3_64_intdigest(identifier.encode()) / 2**64
    for split, share in shares.items():
        if point < share:
            return split
        point -= share
    return next(reversed([split for split, share in shares.items() if share > 0]))
