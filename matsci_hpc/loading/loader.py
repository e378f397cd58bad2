"""The batches of one rank, made ahead of time by a thread while the model computes."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.batch import Batch
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.divide import divide, imbalance, micro_batches
from matsci_hpc.loading.plan import EpochPlan, Plan
from matsci_hpc.loading.sanity import checked_batch

PREFETCH = 2
"""Batches made ahead."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next step of a run: `step` of the whole run, which is step `within` of an epoch; all from 0."""

    step: int
    epoch: int
    within: int


@dataclass(frozen=True, slots=True)
class Division:
    """How a global batch becomes the work of one rank.

    Attributes:
        rank, ranks: this rank and their number.
        virtual: ranks that each of them stands for.
        speeds: relative speed of each rank, or None where all are alike.
        micro_batches: least number of parts that a rank computes its share in.
        micro_cost: most predicted cost of a part, or None.
        pin: whether batches go into page-locked memory, from which a GPU copies without waiting.
    """

    rank: int
    ranks: int
    speeds: tuple[float, ...] | None = None
    micro_batches: int = 1
    micro_cost: float | None = None
    pin: bool = False
    virtual: int = 1


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one rank does in a step, and what all ranks do together, which each of them knows from the plan.

    Attributes:
        cursor: of this step.
        after: of the next one.
        batches: this rank's share in parts, whose gradients add up; none if the rank has no graph.
        share_parts: how many of these parts each of the ranks has that this one stands for, in turn; their sum is the
            number of parts.
        samples: int64, numbers of the samples of this rank.
        rank_atoms, rank_edges: of this rank.
        graphs, atoms, edges: of the global batch.
        target_counts: samples of the global batch that carry each target, or atoms where every atom has a value;
            losses are divided by these.
        cost_imbalance: largest over mean predicted time of the ranks.
    """

    cursor: Cursor
    after: Cursor
    batches: list[Batch]
    samples: NDArray[np.int64]
    rank_atoms: int
    rank_edges: int
    graphs: int
    atoms: int
    edges: int
    target_counts: dict[str, int]
    cost_imbalance: float
    share_parts: tuple[int, ...]

    @property
    def shares(self) -> list[list[Batch]]:
        """The parts by the ranks that this one stands for."""
        ends = list(accumulate(self.share_parts))
        return [self.batches[end - count : end] for end, count in zip(ends, self.share_parts, strict=True)]

    @property
    def ends_epoch(self) -> bool:
        """Whether the next step begins another epoch."""
        return self.after.epoch != self.cursor.epoch


def step_work(
    collection: Collection, epoch: EpochPlan, cursor: Cursor, division: Division, cost: CostModel
) -> StepWork:
    """The work of one rank in one step.

    Args:
        collection: the data.
        epoch: plan of the step's epoch.
        cursor: the step.
        division: of the batch over the ranks.
        cost: predicts what a sample costs a rank.
    """
    samples = epoch.batch(cursor.within)
    atoms, edges = collection.atoms(samples), collection.edges(samples)
    costs = cost.of(atoms, edges)
    virtual = division.virtual
    small_shares = divide(costs, division.ranks * virtual, division.speeds)
    shares = [np.concatenate(small_shares[start : start + virtual]) for start in range(0, len(small_shares), virtual)]
    mine = shares[division.rank]
    first = division.rank * virtual
    parts_by_share = [
        [share[part] for part in micro_batches(costs[share], division.micro_batches, division.micro_cost)]
        for share in small_shares[first : first + virtual]
    ]
    parts = [part for parts in parts_by_share for part in parts]
    last = not epoch.has(cursor.within + 1)
    return StepWork(
        cursor=cursor,
        after=Cursor(cursor.step + 1, cursor.epoch + last, 0 if last else cursor.within + 1),
        batches=[checked_batch(collection, samples[part], pin=division.pin) for part in parts],
        samples=samples[mine],
        rank_atoms=int(atoms[mine].sum()),
        rank_edges=int(edges[mine].sum()),
        graphs=len(samples),
        atoms=int(atoms.sum()),
        edges=int(edges.sum()),
        target_counts=collection.carriers(samples),
        cost_imbalance=imbalance(costs, shares, division.speeds),
        share_parts=tuple(map(len, parts_by_share)),
    )


class Loader:
    """Iterates over the steps of one rank. Close it, or use it as a context manager.

    Args:
        collection: the data.
        plan: the order of training.
        start: first step.
        stop: number of the step before which the run ends.
        division: of a global batch over the ranks.
        cost: for the division in the epoch of `start`.
        waits: whether later epochs wait for `begin_epoch` to tell their cost model.
    """

    def __init__(
        self,
        collection: Collection,
        plan: Plan,
        start: Cursor,
        stop: int,
        division: Division,
        cost: CostModel,
        *,
        waits: bool = False,
    ) -> None:
        collection.shared_by(division.ranks)
        self._collection, self._plan, self._division = collection, plan, division
        self._cursor, self._stop = start, stop
        self._cost, self._waits = cost, waits
        self._costs: queue.Queue[CostModel] = queue.Queue()
        self._ready: queue.Queue[StepWork | BaseException | None] = queue.Queue(maxsize=PREFETCH)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[StepWork]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def begin_epoch(self, cost: CostModel) -> None:
        """Tell the cost model of the epoch after the one that the last batch taken belongs to."""
        self._costs.put(cost)

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self._costs.put(self._cost)  # it may wait for one
        while self._thread.is_alive():
            try:  # or for room
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.05)

    def _run(self) -> None:
        try:
            epoch = self._plan.epoch(self._cursor.epoch)
            while self._cursor.step < self._stop and not self._closing.is_set():
                if epoch.epoch != self._cursor.epoch:
                    if self._waits:
                        self._cost = self._costs.get()
                    epoch = self._plan.epoch(self._cursor.epoch)
                while not epoch.has(self._cursor.within):  # a tenth of a small data set may be nothing at all
                    self._cursor = Cursor(self._cursor.step, epoch.epoch + 1, 0)
                    epoch = self._plan.epoch(self._cursor.epoch)
                work = step_work(self._collection, epoch, self._cursor, self._division, self._cost)
                self._cursor = work.after
                self._ready.put(work)
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the batches are used
            self._ready.put(error)
