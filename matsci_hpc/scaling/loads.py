"""How the plan of a run divides its steps over any number of ranks: from the index alone, by the code of the run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.divide import divide, loads_of
from matsci_hpc.loading.grouping import SIMULATED_STEPS, resolve_grouping
from matsci_hpc.loading.plan import COST, Plan
from matsci_hpc.loading.spec import PlanSpec, SampleSizes, plan_spec

Floats = NDArray[np.float64]
MOST_STEPS = 32
"""Steps of the first epoch, evenly spread over it, that are divided as in the run."""
MOST_SAMPLES = 1 << 21
"""Samples of all these steps together; at least one step is looked at, however large."""


@dataclass(frozen=True, slots=True)
class Loads:
    """The first epoch on so many ranks.

    Attributes:
        ranks: of the run.
        samples: of the epoch.
        steps: of the epoch.
        group_above: predicted cost above which similar samples are trained together; None for no grouping.
        loads: predicted cost of each rank in each step that was looked at, float64 [steps looked at, ranks].
        graphs: samples of a step, mean over the epoch.
        planning_s: what choosing and dividing a step's batch took here, mean; every rank does so for every step.
    """

    ranks: int
    samples: int
    steps: int
    group_above: float | None
    loads: Floats
    graphs: float
    planning_s: float

    @property
    def imbalance(self) -> float:
        """Largest over mean load, of all steps together."""
        return float(self.loads.max(axis=1).sum() / self.loads.mean(axis=1).sum())

    @property
    def idle(self) -> float:
        """Share of (rank, step) pairs without work."""
        return float((self.loads == 0).mean())


def for_ranks(config: TrainConfig, ranks: int, base: int, *, weak: bool) -> TrainConfig:
    """The config of a run on so many ranks.

    Args:
        config: of the run on the base number of ranks.
        ranks: of the run wanted.
        base: ranks that the config's batch is for.
        weak: whether the batch of a rank stays the same, rather than the global one.

    Raises:
        UserInputError: no such batch can be, or the ranks are not alike.
    """
    if config.balance.speeds is not None:
        raise UserInputError("balance.speeds: a prediction is for ranks that are alike; add balance.speeds=null")
    if not weak or ranks == base:
        return config
    batch = config.batch
    if batch.graphs is not None:
        graphs = batch.graphs * ranks / base
        if graphs < 1 or graphs != int(graphs):
            raise UserInputError(
                f"batch.graphs: {batch.graphs} on {base} ranks is no whole number of graphs on {ranks}; choose a "
                f"multiple of {base}"
            )
        return config.model_copy(update={"batch": batch.model_copy(update={"graphs": int(graphs)})})
    cost = (batch.cost or 0.0) * ranks / base
    return config.model_copy(update={"batch": batch.model_copy(update={"cost": cost})})


def look_at_loads(config: TrainConfig, sizes: SampleSizes, ranks: int) -> Loads:
    """Divide some steps of the first epoch as a run on so many ranks would.

    Args:
        config: of that run, from `for_ranks`.
        sizes: of the samples.
        ranks: of the run.

    Raises:
        UserInputError: no sample is in the split.
    """
    spec = plan_spec(config, sizes)
    above = config.batch.group_above
    if above is None:
        few = int(np.clip(MOST_SAMPLES / Plan(sizes, spec).graphs_per_step, 1, SIMULATED_STEPS))
        above = resolve_grouping(sizes, spec, ranks * config.parallel.virtual_ranks, config.batch.grouping, steps=few)
    epoch = Plan(sizes, replace(spec, group_above=above)).epoch(0)
    if epoch.steps == 0:
        raise UserInputError("the first epoch has no sample")
    count = int(np.clip(MOST_SAMPLES * epoch.steps / epoch.samples, 1, min(epoch.steps, MOST_STEPS)))
    numbers = (2 * np.arange(count) + 1) * epoch.steps // (2 * count)  # the middle of equal stretches of the epoch
    loads = np.empty((count, ranks))
    start_s = time.perf_counter()
    for row, step in enumerate(numbers.tolist()):
        samples = epoch.batch(step)
        costs = COST.of(sizes.atoms(samples), sizes.edges(samples))
        loads[row] = loads_of(costs, divide(costs, ranks))
    return Loads(
        ranks=ranks,
        samples=epoch.samples,
        steps=epoch.steps,
        group_above=above,
        loads=loads,
        graphs=epoch.samples / epoch.steps,
        planning_s=(time.perf_counter() - start_s) / count,
    )


def shares_of(
    config: TrainConfig, sizes: SampleSizes, ranks: int, spec: PlanSpec | None = None
) -> Iterator[NDArray[np.int64]]:
    """Samples of one rank, step after step, another rank each time: what a trial computes.

    Args:
        config: of the run on so many ranks.
        sizes: of the samples.
        ranks: of the run.
        spec: of the plan; None for that of the config.
    """
    plan = Plan(sizes, spec or plan_spec(config, sizes))
    number = epochs = 0
    while True:
        epoch = plan.epoch(epochs)
        step = 0
        while epoch.has(step):
            samples = epoch.batch(step)
            costs = COST.of(sizes.atoms(samples), sizes.edges(samples))
            share = samples[divide(costs, ranks)[number % ranks]]
            if len(share):
                yield share
            step += 1
            number += 1
        epochs += 1
