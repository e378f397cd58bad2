"""Who computes what: the samples of a step over the ranks, and a rank's share over its micro-batches."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.permutation import Numbers

Costs = NDArray[np.float64]


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
    # Among ranks of one speed the least loaded finishes first, so a heap for each speed holds the candidates.
    by_speed: dict[float, list[tuple[float, int]]] = {}
    for rank in range(ranks):
        by_speed.setdefault(speeds[rank] if speeds is not None else 1.0, []).append((0.0, rank))
    classes = sorted(by_speed.items(), reverse=True)
    order = np.argsort(-costs, kind="stable")
    owner = np.empty(len(costs), dtype=np.int64)
    if len(classes) == 1:
        owner[order] = _longest_first(costs[order].tolist(), classes[0][1])
    else:
        owner[order] = _first_to_finish(costs[order].tolist(), classes)
    by_owner = np.argsort(owner, kind="stable")
    return np.split(by_owner, np.cumsum(np.bincount(owner, minlength=ranks))[:-1])


def _longest_first(costs: list[float], heap: list[tuple[float, int]]) -> list[int]:
    owners = []
    for cost in costs:
        load, rank = heap[0]
        owners.append(rank)
        heapq.heapreplace(heap, (load + cost, rank))
    return owners


def _first_to_finish(costs: list[float], classes: list[tuple[float, list[tuple[float, int]]]]) -> list[int]:
    owners = []
    for cost in costs:
        _, heap = min(classes, key=lambda each: (each[1][0][0] + cost) / each[0])
        load, rank = heap[0]
        owners.append(rank)
        heapq.heapreplace(heap, (load + cost, rank))
    return owners


def imbalance(costs: Costs, shares: Sequence[Numbers], speeds: Sequence[float] | None = None) -> float:
    """Time of the rank that finishes last over the time that a perfect division would take: 1 is perfect balance.

    Among equally fast ranks this is the largest over the mean cost.
    """
    loads = np.array([costs[share].sum() for share in shares])
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
