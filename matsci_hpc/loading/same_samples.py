"""Whether two data sets of a run hold the same samples, under whatever name: what their manifests tell."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from matsci_hpc.shards.manifest import Manifest


class SameSamples(NamedTuple):
    """Two data sets that have samples in common, or may have.

    Attributes:
        text: what is the matter.
        advice: what to do.
        refused: whether no run may use both. Two folders may be different parts of one data set.
    """

    text: str
    advice: str
    refused: bool


def same_samples(data: Iterable[tuple[str, Manifest]]) -> Iterator[SameSamples]:
    """Pairs of data sets that hold the same samples, which an epoch would count twice, or train on while held out.

    Args:
        data: what messages call each data set, and its manifest.
    """
    for (name, one), (later, other) in combinations(data, 2):
        if one.fingerprint == other.fingerprint:
            yield SameSamples(f"{later} holds the same data as {name}", "name it once in data.train", refused=True)
            continue
        shared = sorted(set(one.generators or ()) & set(other.generators or ()))
        if shared:
            refused = not (one.shards and other.shards)
            advice = "leave one out, or give the source another seed"
            if not refused:
                advice = "leave one out, unless they are different parts of one data set"
            text = f"{name} and {later} may hold the same samples: both draw on {' and '.join(shared)}"
            yield SameSamples(text, advice, refused)
