"""Ranks that keep the others waiting, and why: more work, slower data or a slower node.

A rank is busy while it waits for data, computes and moves the parameters; while it communicates it may wait for others,
so that time is no sign of its own. A rank r that is busy for longer than the median rank loses, of its excess,

    data_r - median(data)                                     to slower data,
    median(compute) (cost_r / median(cost) - 1)               to more work by predicted cost, and
    the rest                                                  to its node: the same work took longer.

The largest of the three names the reason. Where the median rank has no work at all, all computing is more work.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from matsci_hpc.cores import list_text
from matsci_hpc.telemetry.interval import Interval, Values

Reason = Literal["work", "data", "node"]
REASONS: dict[Reason, str] = {
    "work": "more work than others, by predicted cost",
    "data": "slower data, it waits for its batches",
    "node": "slower node, the same work takes longer",
}
PERSISTENT = 3
"""Intervals in a row after which a straggler is one that stays."""
NAMED = 8
"""Stragglers named in a line, the slowest ones: the file must not grow with the job."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """A rank that keeps the others waiting.

    Attributes:
        rank, host: which one, and its node.
        ratio: its busy time over that of the median rank.
        reason: where the largest part of its excess comes from.
        intervals: in a row, this one included.
    """

    rank: int
    host: str
    ratio: float
    reason: Reason
    intervals: int

    def to_json(self) -> dict[str, Any]:
        """As it stands in a metrics line."""
        return asdict(self)


def find_stragglers(interval: Interval, cost: Values, ratio: float) -> dict[int, tuple[float, Reason]]:
    """Stragglers of an interval: busy time over the median, and reason, by rank.

    Args:
        interval: of all ranks.
        cost: float64 [ranks], predicted time of their work in any unit.
        ratio: busy time over the median from which on a rank is one.
    """
    data, compute = interval.of("data"), interval.of("forward") + interval.of("backward")
    busy = data + compute + interval.of("optimizer")
    typical, share = _median(busy), _median(cost)
    if typical <= 0:
        return {}
    found = {}
    for rank in np.flatnonzero(busy > ratio * typical).tolist():
        by_data = float(data[rank]) - _median(data)
        by_work = _median(compute) * (float(cost[rank]) / share - 1) if share > 0 else float(compute[rank])
        by_node = float(busy[rank]) - typical - by_data - by_work
        excess: dict[Reason, float] = {"work": by_work, "data": by_data, "node": by_node}
        found[rank] = float(busy[rank]) / typical, max(excess, key=lambda reason: excess[reason])
    return found


class StragglerWatch:
    """Follows the stragglers from interval to interval.

    Args:
        hosts: of each rank.
        ratio: as of `find_stragglers`.
    """

    def __init__(self, hosts: Sequence[str], ratio: float) -> None:
        self._hosts = hosts
        self._ratio = ratio
        self._in_row: dict[int, int] = {}
        self._said: set[tuple[int, Reason]] = set()

    def look(self, interval: Interval, cost: Values) -> list[Straggler]:
        """Stragglers of the next interval, the slowest first."""
        found = find_stragglers(interval, cost, self._ratio)
        self._in_row = {rank: self._in_row.get(rank, 0) + 1 for rank in found}
        stragglers = [
            Straggler(rank, self._hosts[rank], round(times, 3), reason, self._in_row[rank])
            for rank, (times, reason) in found.items()
        ]
        return sorted(stragglers, key=lambda each: -each.ratio)

    def remarks(self, stragglers: Sequence[Straggler]) -> Iterator[str]:
        """A sentence for each node whose ranks have just become stragglers that stay; each rank and reason once."""
        fresh = [
            each for each in stragglers if each.intervals >= PERSISTENT and (each.rank, each.reason) not in self._said
        ]
        self._said.update((each.rank, each.reason) for each in fresh)

        def place(each: Straggler) -> tuple[str, str]:
            return each.host, each.reason

        for (host, _), group in groupby(sorted(fresh, key=place), key=place):
            ranks = list(group)
            worst = max(ranks, key=lambda each: each.ratio)
            who = f"rank{'s' if len(ranks) > 1 else ''} {list_text(each.rank for each in ranks)} on {host}"
            yield (
                f"straggler: {who}, busy {worst.ratio:.2f} times as long as the median rank, "
                f"{worst.intervals} intervals in a row: {REASONS[worst.reason]}"
            )


def _median(values: Values) -> float:
    """The lower one of the two in the middle: of two ranks, the slower one is measured by the faster."""
    return float(np.quantile(values, 0.5, method="lower"))
