"""Which sample each occurrence of an epoch is, where data sets may stand in an epoch more than once or in part.

A data set of n samples that stands r times in an epoch has about r n occurrences there: every sample as often as r has
ones, and of the rest a share of the samples, its fractional part f. The share is a slice of a fixed random order of
the data set, and the slice moves on from epoch to epoch: epoch e takes the places floor(e f n) to floor((e + 1) f n).
So after 1/f epochs every sample has been seen exactly once more, and after many epochs all equally often.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from matsci_hpc.loading.order import InTurn, Order
from matsci_hpc.loading.permutation import Numbers
from matsci_hpc.loading.spec import PlanSpec, SampleSizes


@dataclass(frozen=True, slots=True)
class _Part:
    """The occurrences of one data set in an epoch: `whole` of it, then `extra` places of its order from `place` on."""

    samples: int
    whole: int
    place: int
    extra: int

    @property
    def count(self) -> int:
        return self.whole * self.samples + self.extra


class Mixture:
    """The occurrences of every epoch.

    Args:
        sizes: of the samples.
        spec: of the plan.
        excluded: for each data set int64 positions in the split, ascending, that stand in no epoch.
    """

    def __init__(self, sizes: SampleSizes, spec: PlanSpec, excluded: Sequence[Numbers] = ()) -> None:
        self._sizes = sizes
        self._split = spec.split
        present = sizes.split_counts(spec.split)
        # Subtracting its rank turns an excluded position into the number of kept positions before it.
        self._gaps = [positions - np.arange(len(positions)) for positions in excluded] or [_none()] * len(present)
        self._counts = [int(n) - len(gaps) for n, gaps in zip(present, self._gaps, strict=True)]
        self._repeats = spec.repeats or (Fraction(1),) * len(present)
        self._orders = [
            _order(spec, d, n) if repeat.denominator > 1 else None
            for d, (n, repeat) in enumerate(zip(self._counts, self._repeats, strict=True))
        ]

    def count(self, epoch: int) -> int:
        """Occurrences in an epoch. It may differ by a few between epochs where data sets stand in it in part."""
        return sum(part.count for part in self._parts(epoch))

    def counts(self, epoch: int) -> list[int]:
        """Occurrences of each data set in an epoch."""
        return [part.count for part in self._parts(epoch)]

    def samples(self, epoch: int, occurrences: Numbers) -> Numbers:
        """Numbers of the samples that some occurrences of an epoch are, int64 [n]."""
        parts = self._parts(epoch)
        ends = np.cumsum([part.count for part in parts])
        dataset = np.searchsorted(ends, occurrences, side="right")
        result = np.empty(len(occurrences), dtype=np.int64)
        for d in np.flatnonzero(np.bincount(dataset, minlength=len(parts))).tolist():
            mine = slice(None) if len(parts) == 1 else dataset == d
            first = int(ends[d]) - parts[d].count
            result[mine] = self._of_one(d, parts[d], occurrences[mine] - first)
        return result

    def _of_one(self, dataset: int, part: _Part, occurrences: Numbers) -> Numbers:
        positions = occurrences % part.samples if part.whole > 1 or part.extra else occurrences
        order = self._orders[dataset]
        if order is not None and part.extra:
            beyond = occurrences >= part.whole * part.samples
            place = part.place + occurrences[beyond] - part.whole * part.samples
            positions[beyond] = order(place % part.samples)
        gaps = self._gaps[dataset]
        if len(gaps):
            positions = positions + np.searchsorted(gaps, positions, side="right")
        return self._sizes.select(self._split, dataset, positions)

    def _parts(self, epoch: int) -> list[_Part]:
        return [_part(n, repeat, epoch) for n, repeat in zip(self._counts, self._repeats, strict=True)]


def _order(spec: PlanSpec, dataset: int, samples: int) -> Order | InTurn:
    return InTurn() if spec.in_turn else Order(samples, spec.block, spec.seed, "part of a data set", dataset)


def _part(samples: int, repeat: Fraction, epoch: int) -> _Part:
    whole = int(repeat)
    share = (repeat - whole) * samples
    start, stop = int(epoch * share), int((epoch + 1) * share)
    return _Part(samples, whole, start % max(samples, 1), stop - start)


def _none() -> Numbers:
    return np.empty(0, dtype=np.int64)
