"""Whether similar samples are trained together, and from which size on: decided once, when a run begins.

Grouping makes the samples of a step more alike, so no more of it is done than balance needs: of some thresholds, from
the largest few samples down to half of all, the highest one is taken at which the ranks are busy enough.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from matsci_hpc.loading.divide import divide, imbalance
from matsci_hpc.loading.permutation import Numbers
from matsci_hpc.loading.plan import COST, EpochPlan, Plan
from matsci_hpc.loading.spec import PlanSpec, SampleSizes

MIN_RANKS = 32
"""Below this `auto` never groups: a small run stays comparable with one rank to the last sample."""
GOAL = 0.95
"""Balance-limited efficiency at which ranks are busy enough."""
SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
"""Shares of the samples, the largest ones, whose grouping is tried."""
SIMULATED_STEPS = 48
SAMPLED = 1 << 16

Grouping = Literal["auto", "none", "similar"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One threshold that was tried.

    Attributes:
        group_above: predicted cost above which samples are grouped; None for no grouping.
        share: of the samples that are.
        efficiency: mean over some steps of mean / largest load of the ranks.
    """

    group_above: float | None
    share: float
    efficiency: float


def resolve_grouping(
    sizes: SampleSizes,
    spec: PlanSpec,
    ranks: int,
    grouping: Grouping = "auto",
    speeds: Sequence[float] | None = None,
    steps: int = SIMULATED_STEPS,
) -> float | None:
    """The threshold of grouping for a run that begins on so many ranks.

    Save it with the run: a run that goes on with other ranks keeps it, or its batches would change.

    Args:
        sizes: of the samples.
        spec: of the plan; its `group_above` is not looked at.
        ranks: that the run begins with.
        grouping: `none` never groups, `auto` only where it is needed, `similar` always, at any number of ranks.
        speeds: of the ranks.
        steps: that are looked at; a run looks at all of them, a prediction may want to be quick.

    Returns:
        Predicted cost above which samples are trained in steps of their own kind; None for no grouping.
    """
    if grouping == "none" or (grouping == "auto" and ranks < MIN_RANKS):
        return None
    trials = try_thresholds(sizes, spec, ranks, speeds, plain=grouping == "auto", steps=steps)
    return choose(trials).group_above


def choose(trials: list[Trial]) -> Trial:
    """The least grouping that reaches the goal, else the one that comes nearest."""
    reached = [trial for trial in trials if trial.efficiency >= GOAL]
    return reached[0] if reached else max(trials, key=lambda trial: trial.efficiency)


def try_thresholds(
    sizes: SampleSizes,
    spec: PlanSpec,
    ranks: int,
    speeds: Sequence[float] | None = None,
    *,
    plain: bool = True,
    steps: int = SIMULATED_STEPS,
) -> list[Trial]:
    """Efficiency without grouping (if `plain`) and at every threshold, least grouping first, up to the goal."""
    epoch = Plan(sizes, replace(spec, group_above=None)).epoch(0)
    costs = np.sort(epoch.draw_with_costs(0, min(SAMPLED, epoch.samples))[1])
    trials: list[Trial] = []
    for share in ((0.0,) if plain else ()) + SHARES:
        above = float(costs[min(int((1 - share) * len(costs)), len(costs) - 1)]) if share else None
        plan = Plan(sizes, replace(spec, group_above=above)).epoch(0)
        efficiency = float(np.mean([1 / each for each in simulate(sizes, plan, ranks, speeds, steps=steps)]))
        trials.append(Trial(above, share, efficiency))
        if efficiency >= GOAL:
            break
    return trials


def simulate(
    sizes: SampleSizes,
    epoch: EpochPlan,
    ranks: int,
    speeds: Sequence[float] | None = None,
    look: Callable[[Numbers], None] = lambda _: None,
    steps: int = SIMULATED_STEPS,
) -> list[float]:
    """Imbalance of the first few dozen steps of an epoch, which stand for all: they are in random order."""
    found = []
    for step in range(steps):
        if not epoch.has(step):
            break
        samples = epoch.batch(step)
        look(samples)
        costs = COST.of(sizes.atoms(samples), sizes.edges(samples))
        found.append(imbalance(costs, divide(costs, ranks, speeds), speeds))
    return found
