"""Which split a sample belongs to, where its source does not say."""

import xxhash


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
