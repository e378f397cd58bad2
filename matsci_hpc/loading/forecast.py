"""What a run will ask of its ranks, from the index alone: steps, balance, and what planning itself takes."""

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.loading.divide import divide, loads_of, micro_batches
from matsci_hpc.loading.plan import COST, EpochPlan, Plan
from matsci_hpc.loading.spec import PlanSpec, SampleSizes

CHUNK = 1 << 16
LOOKED_AT = 64
"""Steps of the first epoch, evenly spread over it, that are divided as in the run."""
PLANNING_LIMIT_S = 10.0
"""Longest time that planning is measured for; an epoch that takes longer is extrapolated."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A number that differs from step to step."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The samples of an epoch together, repeats counted.

    Attributes:
        atoms, edges: of all of them; a data set that stands in the epoch in part counts as that part of its whole.
        largest: predicted cost of the largest sample of any epoch.
    """

    atoms: float
    edges: float
    largest: float


@dataclass(frozen=True, slots=True)
class Balance:
    """How busy the ranks are in the steps of one plan.

    Attributes:
        group_above: predicted cost above which samples are trained in steps of their own kind; None for no grouping.
        steps: of the first epoch.
        looked_at: steps that the other numbers come from, but for the means, which hold for all of them.
        graphs, atoms, edges: of a step.
        efficiency: mean over the steps of perfect / real time, as limited by balance alone.
        time_weighted: perfect time of all these steps together over the real one, so that long steps count for more.
        worst: mean efficiency of the worst twentieth of the steps.
        mean_share, largest_share: predicted cost of a rank in a step; the largest is at least the largest sample.
        largest_part: the largest predicted cost that a rank computes at once.
        idle: share of (rank, step) pairs in which a rank has no sample; the last step, which may be short, is left out
            unless it is the only one.
    """

    group_above: float | None
    steps: int
    looked_at: int
    graphs: Spread
    atoms: Spread
    edges: Spread
    efficiency: float
    time_weighted: float
    worst: float
    mean_share: float
    largest_share: float
    largest_part: float
    idle: float


@dataclass(frozen=True, slots=True)
class Planning:
    """What planning an epoch takes on each rank, spread over the epoch; memory besides that of the mapped index."""

    time_s: float
    memory_bytes: int
    extrapolated: bool


def add_up(sizes: SampleSizes, plan: Plan) -> Totals:
    """Read the sizes of all samples of the split once, a chunk at a time."""
    spec = plan.spec
    limit = spec.oversized_cost if spec.oversized_policy == "skip" else None
    sums, largest = np.zeros(2), 0.0
    for dataset, (count, in_epoch) in enumerate(
        zip(sizes.split_counts(spec.split).tolist(), plan.counts(0), strict=True)
    ):
        kept, own = 0, np.zeros(2)
        stop = in_epoch if spec.in_turn else count  # nobody looks through what has no end
        for start in range(0, stop, CHUNK):
            samples = sizes.select(spec.split, dataset, np.arange(start, min(start + CHUNK, stop)))
            atoms, edges = sizes.atoms(samples), sizes.edges(samples)
            costs = COST.of(atoms, edges)
            fits = costs <= (np.inf if limit is None else limit)
            kept += int(fits.sum())
            own += (atoms[fits].sum(), edges[fits].sum())
            largest = max(largest, float(costs.max(where=fits, initial=0.0)))
        sums += own * (in_epoch / max(kept, 1))
    return Totals(float(sums[0]), float(sums[1]), largest)


def forecast_balance(
    sizes: SampleSizes,
    spec: PlanSpec,
    totals: Totals,
    ranks: int,
    speeds: Sequence[float] | None = None,
    parts: int = 1,
    part_cost: float | None = None,
) -> Balance:
    """Divide some steps of the first epoch as a run on so many ranks would.

    Args:
        sizes: of the samples.
        spec: of the plan.
        totals: of the epoch, from `add_up`.
        ranks: of the run.
        speeds: of the ranks.
        parts: least number of parts that a rank computes its share in.
        part_cost: most predicted cost of such a part.
    """
    epoch = Plan(sizes, spec).epoch(0)
    count = min(epoch.steps, LOOKED_AT)
    numbers = (2 * np.arange(count) + 1) * epoch.steps // (2 * count)  # the middle of equal stretches of the epoch
    rows, times, largest, largest_part, idle, pairs = [], [], totals.largest, totals.largest, 0, 0
    for step in numbers.tolist():
        samples = epoch.batch(step)
        atoms, edges = sizes.atoms(samples), sizes.edges(samples)
        costs = COST.of(atoms, edges)
        shares = divide(costs, ranks, speeds)
        loads = loads_of(costs, shares)
        speed = np.ones(ranks) if speeds is None else np.asarray(speeds, dtype=np.float64)
        rows.append((len(samples), int(atoms.sum()), int(edges.sum())))
        times.append((loads.sum() / speed.sum(), (loads / speed).max()))
        largest = max(largest, float(loads.max()))
        most = costs[shares[int(loads.argmax())]]
        largest_part = max(largest_part, *(float(most[part].sum()) for part in micro_batches(most, parts, part_cost)))
        if step < epoch.steps - 1 or epoch.steps == 1:
            idle += sum(len(share) == 0 for share in shares)
            pairs += ranks
    perfect, real = np.array(times).T
    efficiency = np.sort(perfect / real)
    table = np.array(rows, dtype=np.float64)
    if count == epoch.steps:
        means = table.mean(axis=0)
    else:
        means = np.array([epoch.samples, totals.atoms, totals.edges]) / epoch.steps
    return Balance(
        group_above=spec.group_above,
        steps=epoch.steps,
        looked_at=count,
        graphs=_spread(table[:, 0], means[0]),
        atoms=_spread(table[:, 1], means[1]),
        edges=_spread(table[:, 2], means[2]),
        efficiency=float(efficiency.mean()),
        time_weighted=float(perfect.sum() / real.sum()),
        worst=float(efficiency[: max(1, len(efficiency) // 20)].mean()),
        mean_share=float(COST.edge * means[2] + COST.atom * means[1]) / ranks,
        largest_share=largest,
        largest_part=largest_part,
        idle=idle / max(pairs, 1),
    )


def measure_planning(sizes: SampleSizes, spec: PlanSpec) -> Planning:
    """Plan the first epoch, and look at the memory that its first steps take."""
    start_s = time.perf_counter()
    epoch = Plan(sizes, spec).epoch(0)
    done = _plan_for(epoch, PLANNING_LIMIT_S)
    time_s = time.perf_counter() - start_s
    tracemalloc.start()
    try:
        _plan_for(Plan(sizes, spec).epoch(0), 1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Planning(time_s * epoch.samples / max(done, 1), peak, done < epoch.samples)


def _plan_for(epoch: EpochPlan, limit_s: float) -> int:
    """Plan step after step for so long; the samples that were planned."""
    start_s = time.perf_counter()
    step = samples = 0
    while epoch.has(step) and time.perf_counter() - start_s < limit_s:
        samples += len(epoch.batch(step))
        step += 1
    return samples


def _spread(values: NDArray[np.float64], mean: float) -> Spread:
    return Spread(float(mean), float(values.min()), float(values.max()))
