"""Area under the receiver operating characteristic, exact for any number of ties."""

import numpy as np
from numpy.typing import NDArray


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive sample has a higher score than a negative one; equal scores count as half.

    This is the Mann-Whitney statistic over the number of pairs, summed in integers, so that the order of the samples
    does not matter.

    Args:
        scores: [n].
        positive: [n].

    Returns:
        None where only one of the classes is there, or a score is not a number.
    """
    if positive.all() or not positive.any() or np.isnan(scores).any():
        return None
    distinct, place = np.unique(scores, return_inverse=True)
    positives = np.bincount(place[positive], minlength=len(distinct))
    negatives = np.bincount(place[~positive], minlength=len(distinct))
    below = np.cumsum(negatives) - negatives
    half_pairs_won = int((positives * (2 * below + negatives)).sum())
    return half_pairs_won / (2 * int(positives.sum()) * int(negatives.sum()))
