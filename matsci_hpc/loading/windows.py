"""Samples in random order to the batches of some steps, those of a kind together where that is wanted.

Where a rank holds few samples of a step, one that is far larger than the others keeps all ranks waiting, however
the step is divided. Grouping trains the samples above a threshold in steps of their own, sorted by cost, so that a
large one has company; these steps are spread at random among the others, whose samples are drawn at random as ever.

Groups are made within a window of the random order. Each epoch has other windows, so a large sample meets other ones
of about its size each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.permutation import Numbers, Permutation

Costs = NDArray[np.float64]

SPARE = 1024
"""Samples sorted besides the large ones, to fill their last step up with."""


def cut_by_count(costs: Costs, graphs: int, above: float, key: Sequence[int | str]) -> Numbers:
    """The order in which consecutive `graphs` samples form the steps of a window.

    Args:
        costs: float64 [n] of the samples in random order.
        graphs: samples of a step. The last step of the window gets what remains.
        above: samples of a higher cost are trained in steps of their own, the last of which is filled with the
            largest others.
        key: what the order of the steps follows from.

    Returns:
        int64 [n], positions in `costs`.
    """
    full = len(costs) // graphs
    large = min(full, -(-int((costs > above).sum()) // graphs))
    grouped = _largest(costs, large * graphs)
    is_grouped = np.zeros(len(costs), dtype=bool)
    is_grouped[grouped] = True
    order = np.concatenate([grouped, np.flatnonzero(~is_grouped)])
    steps = Permutation(full, *key, "steps")(np.arange(full))
    shuffled = order[: full * graphs].reshape(full, graphs)[steps].reshape(-1)
    return np.concatenate([shuffled, order[full * graphs :]])


@dataclass(frozen=True, slots=True)
class Cut:
    """Batches as int64 positions in the window, and the positions that are `left` for the next window."""

    batches: list[Numbers]
    left: Numbers


def cut_by_cost(costs: Costs, budget: float, above: float | None, key: Sequence[int | str], *, last: bool) -> Cut:
    """The batches of a window, each as long as its cost stays within the budget.

    Args:
        costs: float64 [n] of the samples in random order.
        budget: most cost of a batch. A sample above it stands alone.
        above: threshold of grouping, None for none.
        key: what the order of the steps follows from.
        last: whether this window ends the epoch, so that nothing may be left.
    """
    grouped: list[Numbers] = []
    rest = np.arange(len(costs))
    if above is not None and (large := int((costs > above).sum())):
        by_cost = _largest(costs, min(len(costs), 2 * large + SPARE))
        ends = [end for end in _ends(costs[by_cost], budget) if end[0] < large]
        if ends[-1][1] == len(by_cost) < len(costs):  # so many small ones fill the last group up
            by_cost = _largest(costs, len(costs))
            ends = [end for end in _ends(costs[by_cost], budget) if end[0] < large]
        # The last group may still fill up in the next window, unless there is none.
        if not last and ends and ends[-1][1] == len(costs):
            ends.pop()
        grouped = [by_cost[start:end] for start, end in ends]
        taken = np.zeros(len(costs), dtype=bool)
        for each in grouped:
            taken[each] = True
        rest = np.flatnonzero(~taken)
    cuts = _ends(costs[rest], budget)
    left = rest[:0]
    if cuts and not last:
        left = rest[cuts.pop()[0] :]
    batches = [*grouped, *(rest[start:end] for start, end in cuts)]
    # Random anyway; only groups have to be spread.
    if grouped:
        batches = [batches[i] for i in Permutation(len(batches), *key, "steps")(np.arange(len(batches)))]
    return Cut(batches, left)


def _ends(costs: Costs, budget: float) -> list[tuple[int, int]]:
    """First and last position + 1 of each batch, the samples taken in their order."""
    sums = np.cumsum(costs)
    cuts: list[tuple[int, int]] = []
    start, before = 0, 0.0
    while start < len(costs):
        end = max(start + 1, int(np.searchsorted(sums, before + budget, side="right")))
        cuts.append((start, end))
        start, before = end, float(sums[end - 1])
    return cuts


def _largest(costs: Costs, count: int) -> Numbers:
    """Positions of the `count` largest costs, largest first, in the order of positions among equals."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    if count == len(costs):
        return np.argsort(-costs, kind="stable")
    least = np.partition(costs, len(costs) - count)[len(costs) - count]
    above = np.flatnonzero(costs > least)
    equal = np.flatnonzero(costs == least)[: count - len(above)]
    chosen = np.concatenate([above, equal])
    return chosen[np.argsort(-costs[chosen], kind="stable")]
