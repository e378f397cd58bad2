"""Whether two data sets of a run hold the same samples, under whatever name: what their manifests tell."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from matsci_hpc.shards.manifest import Manifest


class SameSamples(NamedTuple):
    """Two data sets with samples in common.

    Attributes:
        text: what is the matter.
        advice: what to do.
        certain: whether they surely have them. Of two prepared from the same clouds each may hold another part.
    """

    text: str
    advice: str
    certain: bool


def same_samples(data: Iterable[tuple[str, Manifest]]) -> Iterator[SameSamples]:
    """Pairs of data sets that hold the same samples, which an epoch would count twice, or train on while held out.

    Args:
        data: what messages call each data set, and its manifest.
    """
    for (name, one), (later, other) in combinations(data, 2):
        if one.fingerprint == other.fingerprint:
            yield SameSamples(f"{later} holds the same data as {name}", "name it once in data.train", certain=True)
            continue
        for generator in sorted(set(one.generators or ()) & set(other.generators or ())):
            certain = not (one.shards and other.shards)
            advice = "leave one out, or give the source another seed"
            if not certain:
                advice = "leave one out, unless they are different parts of one data set"
            yield SameSamples(f"{name} and {later} hold the same samples ({generator})", advice, certain)
