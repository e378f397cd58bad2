"""Who computes what: the samples of a step over the ranks, and a rank's share over its micro-batches."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.permutation import Numbers

Costs = NDArray[np.float64]
WORTH_SORTING = 64
"""Samples in a turn below which a heap is faster than sorting the ranks."""


def divide(costs: Costs, ranks: int, speeds: Sequence[float] | None = None) -> list[Numbers]:
    """Positions of the samples that each rank gets: largest first to the rank that would finish it first (LPT).

    Graham (1969): with ranks of equal speed the largest load is at most 4/3 - 1/(3 ranks) times the best possible
    one. With unequal ones it is less than twice it (Gonzalez, Ibarra and Sahni, 1977).

    Args:
        costs: float64 [n] of the samples of a global batch.
        ranks: number of ranks; some get nothing if there are more of them than samples.
        speeds: of each rank, in any unit; None if all are equally fast.

    Returns:
        For each rank int64 positions in `costs`, ascending.
    """
    if ranks == 1:
        return [np.arange(len(costs))]
    order = np.argsort(-costs, kind="stable")
    owner = np.empty(len(costs), dtype=np.int64)
    if speeds is None or len(set(speeds)) == 1:
        owner[order] = _longest_first(costs[order], ranks)
    else:
        # Among ranks of one speed the least loaded finishes first, so a heap for each speed holds the candidates.
        by_speed: dict[float, list[tuple[float, int]]] = {}
        for rank, speed in enumerate(speeds):
            by_speed.setdefault(speed, []).append((0.0, rank))
        owner[order] = _first_to_finish(costs[order].tolist(), sorted(by_speed.items(), reverse=True))
    by_owner = np.argsort(owner, kind="stable")
    return np.split(by_owner, np.cumsum(np.bincount(owner, minlength=ranks))[:-1])


def _longest_first(costs: Costs, ranks: int) -> Numbers:
    """Owners by LPT, many samples at a time, which takes half the time of a heap of ranks or less.

    Sorted by load, the ranks get the next samples in turn for as long as none that has just got one is the least loaded
    again: the rule of the heap, with the same sums, so the owners are the same.

    Args:
        costs: float64 [n], descending.
        ranks: number of ranks.
    """
    loads = np.zeros(ranks)
    owners = np.empty(len(costs), dtype=np.int64)
    place = 0
    while place < len(costs):
        turn = np.argsort(loads, kind="stable")[: len(costs) - place]
        before = loads[turn]
        after = before + costs[place : place + len(turn)]
        # On equal loads the heap would look at the numbers of the ranks, which the next turn does.
        back = np.flatnonzero(before[1:] >= np.minimum.accumulate(after)[:-1])
        count = int(back[0]) + 1 if len(back) else len(turn)
        owners[place : place + count] = turn[:count]
        loads[turn[:count]] = after[:count]
        place += count
        if count < min(WORTH_SORTING, ranks):
            stop = min(place + max(ranks, WORTH_SORTING), len(costs))
            owners[place:stop] = _by_heap(costs[place:stop], loads)
            place = stop
    return owners


def _by_heap(costs: Costs, loads: Costs) -> Numbers:
    """The same one by one, where ranks come back so soon that sorting all of them does not pay; adds to the loads."""
    heap = list(zip(loads.tolist(), range(len(loads)), strict=True))
    heapq.heapify(heap)
    owners = []
    for cost in costs.tolist():
        load, rank = heap[0]
        owners.append(rank)
        heapq.heapreplace(heap, (load + cost, rank))
    for load, rank in heap:
        loads[rank] = load
    return np.array(owners, dtype=np.int64)


def _first_to_finish(costs: list[float], classes: list[tuple[float, list[tuple[float, int]]]]) -> list[int]:
    owners = []
    for cost in costs:
        _, heap = min(classes, key=lambda each: (each[1][0][0] + cost) / each[0])
        load, rank = heap[0]
        owners.append(rank)
        heapq.heapreplace(heap, (load + cost, rank))
    return owners


def loads_of(costs: Costs, shares: Sequence[Numbers]) -> Costs:
    """Cost of each share, float64 [shares]."""
    # Not `reduceat`, which cannot sum an empty share.
    owner = np.repeat(np.arange(len(shares)), [len(share) for share in shares])
    return np.bincount(owner, weights=costs[np.concatenate(shares)], minlength=len(shares)).astype(np.float64)


def imbalance(costs: Costs, shares: Sequence[Numbers], speeds: Sequence[float] | None = None) -> float:
    """Time of the rank that finishes last over the time that a perfect division would take: 1 is perfect balance.

    Among equally fast ranks this is the largest over the mean cost.
    """
    loads = loads_of(costs, shares)
    speed = np.ones(len(loads)) if speeds is None else np.asarray(speeds, dtype=np.float64)
    total = float(loads.sum())
    return float((loads / speed).max() * speed.sum() / total) if total > 0 else 1.0


def micro_batches(costs: Costs, count: int, max_cost: float | None = None) -> list[Numbers]:
    """Parts of a rank's share that it computes one after the other, of about equal cost.

    Args:
        costs: float64 [n] of the samples of the share.
        count: parts wanted; there are fewer if there are fewer samples.
        max_cost: most cost of a part: there are as many more parts as that takes. A sample above it stands alone.

    Returns:
        For each part int64 positions in `costs`, ascending. None is empty, so an empty share has no part.
    """
    if len(costs) == 0:
        return []
    count = min(count, len(costs))
    if max_cost is not None:
        count = min(max(count, int(np.ceil(costs.sum() / max_cost))), len(costs))
    while True:
        parts = [part for part in divide(costs, count) if len(part)]
        fits = max_cost is None or all(len(part) == 1 or costs[part].sum() <= max_cost for part in parts)
        if fits or count == len(costs):
            return parts
        count += 1


def evaluation_share(costs: Costs, rank: int, ranks: int, max_cost: float) -> list[Numbers]:
    """Batches that one rank evaluates: over all ranks each sample stands in exactly one batch.

    Samples in order of cost are dealt out forth and back (1 2 3 3 2 1 ...), which balances without a plan of loads.

    Args:
        costs: float64 [n] of the samples to evaluate.
        rank: which rank.
        ranks: number of ranks.
        max_cost: most cost of a batch; a sample above it gets a batch of its own.

    Returns:
        Positions in `costs`, batch by batch.
    """
    order = np.argsort(-costs, kind="stable")
    turn = np.arange(len(order)) % (2 * ranks)
    mine = order[(turn == rank) | (turn == 2 * ranks - 1 - rank)]
    batches: list[Numbers] = []
    start, load = 0, 0.0
    for position, cost in enumerate(costs[mine]):
        if position > start and load + cost > max_cost:
            batches.append(np.sort(mine[start:position]))
            start, load = position, 0.0
        load += float(cost)
    if start < len(mine):
        batches.append(np.sort(mine[start:]))
    return batches
