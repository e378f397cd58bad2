"""Who decides which samples form which step: a pure function of (seed, epoch, spec) and the sizes in the index.

A step's global batch is chosen first, without looking at the number of ranks; then it is divided over them by cost
(`divide.py`). So one rank and many ranks learn from the same samples in the same step, and a run may go on with
another number.

    sizes in the index -> occurrences of an epoch (mixture.py) -> their random order (order.py)
        -> windows of some steps -> batches, grouped by cost or not (windows.py)

The order is computed point by point and the batches window by window, so planning takes the memory of one window,
and a run that goes on in the middle of an epoch plans from that window on.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from matsci_hpc.loading.cost import CostModel
from matsci_hpc.loading.mixture import Mixture
from matsci_hpc.loading.order import InTurn, Order
from matsci_hpc.loading.oversized import find_oversized
from matsci_hpc.loading.permutation import Numbers
from matsci_hpc.loading.spec import PlanSpec, SampleSizes
from matsci_hpc.loading.windows import Costs, cut_by_cost, cut_by_count

WINDOW_STEPS = 128
"""Steps planned together, unless they hold more than `WINDOW_SAMPLES`."""
WINDOW_SAMPLES = 1 << 17
"""Samples planned together: a few MB, and enough for groups of similar cost."""
MIN_WINDOW_STEPS = 16
CHUNK = 1 << 16
"""Samples whose sizes are looked up at once."""
FEW = 4096
"""Samples that a mean cost is taken from."""
COST = CostModel()
"""What batches are cut by and grouped by. It is never the fitted one, so that they are the same for ever."""


class Plan:
    """The steps of every epoch.

    Attributes:
        spec: what they follow from.
        oversized: int64 numbers of the samples above `spec.oversized_cost`, ascending. Under the policy `skip` they
            stand in no epoch; under the others they do.
    """

    def __init__(self, sizes: SampleSizes, spec: PlanSpec) -> None:
        self.spec = spec
        self._sizes = sizes
        found = find_oversized(sizes, spec.split, spec.oversized_cost, COST) if spec.oversized_cost is not None else []
        self.oversized = np.concatenate(
            [np.empty(0, dtype=np.int64), *(sizes.select(spec.split, d, each) for d, each in enumerate(found))]
        )
        self._mixture = Mixture(sizes, spec, found if spec.oversized_policy == "skip" else ())
        self._walked: list[EpochPlan] = []
        self._first_steps = [0]

    def epoch(self, epoch: int) -> "EpochPlan":
        """The steps of one epoch, from 0. Nothing of the epochs before it is computed."""
        return EpochPlan(self._sizes, self.spec, self._mixture, epoch)

    def locate(self, step: int) -> tuple[int, int]:
        """Epoch and step within it of a step of the whole run, from 0.

        Where batches are cut by cost this plans every epoch before: a run that saves both numbers never needs it.
        """
        while step >= self._first_steps[-1]:
            self._walked.append(self.epoch(len(self._walked)))
            self._first_steps.append(self._first_steps[-1] + self._walked[-1].steps)
        epoch = bisect_right(self._first_steps, step) - 1
        return epoch, step - self._first_steps[epoch]

    def samples_before(self, step: int) -> int:
        """Samples trained on in the steps of the whole run before this one; as slow as `locate`."""
        epoch, within = self.locate(step)
        return sum(self.samples(before) for before in range(epoch)) + self._walked[epoch].samples_before(within)

    def counts(self, epoch: int) -> list[int]:
        """Samples of each data set that an epoch trains on, repeats counted."""
        return self._mixture.counts(epoch)

    @property
    def graphs_per_step(self) -> float:
        """Samples of a global batch; where batches are cut by cost, about so many, from the first few of an epoch."""
        if self.spec.graphs is not None:
            return self.spec.graphs
        few = min(FEW, self.samples(0))
        mean = float(self.epoch(0).draw_with_costs(0, few)[1].mean()) if few else 1.0
        return max(1.0, (self.spec.cost or 0.0) / max(mean, 1.0))

    def samples(self, epoch: int) -> int:
        """Samples that an epoch trains on, repeats counted."""
        return self._mixture.count(epoch)


class EpochPlan:
    """The steps of one epoch. Not to be shared by threads: it remembers the window that was asked for last.

    Attributes:
        epoch: from 0.
        samples: samples trained on in this epoch, repeats counted.
    """

    def __init__(self, sizes: SampleSizes, spec: PlanSpec, mixture: Mixture, epoch: int) -> None:
        self.epoch = epoch
        self.samples = mixture.count(epoch)
        self._sizes = sizes
        self._spec = spec
        self._mixture = mixture
        self._order = InTurn() if spec.in_turn else Order(self.samples, spec.block, spec.seed, epoch, "order")
        self._batches: _ByCount | _ByCost
        if spec.graphs is not None:
            self._batches = _ByCount(self, spec, spec.graphs)
        else:
            self._batches = _ByCost(self, spec, spec.cost or 0.0)

    @property
    def steps(self) -> int:
        """Steps of this epoch. Where batches are cut by cost, the first call plans the epoch to its end."""
        return self._batches.steps

    def has(self, step: int) -> bool:
        """Whether the epoch has this step, without planning it further than that."""
        return self._batches.has(step)

    def samples_before(self, step: int) -> int:
        """Samples in the steps of this epoch before this one."""
        return self._batches.samples_before(step)

    def batch(self, step: int) -> Numbers:
        """Samples of a step (from 0 within the epoch), int64 [n], ascending; one may be there more than once.

        Raises:
            IndexError: the epoch has no such step.
        """
        if step < 0 or not self.has(step):
            raise IndexError(f"epoch {self.epoch} has no step {step}")
        return np.sort(self._batches.batch(step))

    def draw(self, start: int, stop: int) -> Numbers:
        """Samples at the places `start` to `stop` of the epoch's random order, int64 [n]."""
        return self._mixture.samples(self.epoch, self._order(np.arange(start, stop)))

    def draw_with_costs(self, start: int, stop: int) -> tuple[Numbers, Costs]:
        """The same with their predicted costs, float64 [n]."""
        samples = np.empty(stop - start, dtype=np.int64)
        costs = np.empty(stop - start)
        for first in range(0, stop - start, CHUNK):
            part = slice(first, min(first + CHUNK, stop - start))
            drawn = self.draw(start + part.start, start + part.stop)
            samples[part] = drawn
            costs[part] = COST.of(self._sizes.atoms(drawn), self._sizes.edges(drawn))
        return samples, costs


class _ByCount:
    """Batches of a fixed number of samples: any window can be had at once."""

    def __init__(self, plan: EpochPlan, spec: PlanSpec, graphs: int) -> None:
        self._plan = plan
        self._spec = spec
        self._graphs = graphs
        self.steps = -(-plan.samples // graphs)
        wanted = min(WINDOW_STEPS, max(MIN_WINDOW_STEPS, WINDOW_SAMPLES // graphs))
        # Windows of equal length: a short last one would have little to choose from.
        self._windows = max(1, round(self.steps / wanted))
        self._window, self._samples = -1, np.empty(0, dtype=np.int64)

    def has(self, step: int) -> bool:
        return step < self.steps

    def samples_before(self, step: int) -> int:
        return min(step * self._graphs, self._plan.samples)

    def batch(self, step: int) -> Numbers:
        if self._spec.group_above is None:
            return self._plan.draw(step * self._graphs, min((step + 1) * self._graphs, self._plan.samples))
        window = ((step + 1) * self._windows - 1) // self.steps
        first = window * self.steps // self._windows
        if window != self._window:
            last = (window + 1) * self.steps // self._windows
            samples, costs = self._plan.draw_with_costs(
                first * self._graphs, min(last * self._graphs, self._plan.samples)
            )
            key = (self._spec.seed, self._plan.epoch, window)
            self._samples = samples[cut_by_count(costs, self._graphs, self._spec.group_above, key)]
            self._window = window
        start = (step - first) * self._graphs
        return self._samples[start : start + self._graphs]


@dataclass(frozen=True, slots=True)
class _Window:
    """What the next window of an epoch begins with: its first step, its first place in the order, and what is left."""

    step: int
    place: int
    samples: Numbers
    costs: Costs


class _ByCost:
    """Batches of a cost budget: where a step begins depends on all before it in the epoch, so windows follow in turn.

    What the last window left over, less than a batch, stands at the beginning of the next one.
    """

    def __init__(self, plan: EpochPlan, spec: PlanSpec, budget: float) -> None:
        self._plan = plan
        self._spec = spec
        self._budget = budget
        self._starts = [_Window(0, 0, np.empty(0, dtype=np.int64), np.empty(0))]
        self._window, self._batches = -1, list[Numbers]()
        self._length = self._window_length()

    @property
    def steps(self) -> int:
        while self._starts[-1].place < self._plan.samples:
            self._open(len(self._starts) - 1)
        return self._starts[-1].step

    def has(self, step: int) -> bool:
        while self._starts[-1].step <= step and self._starts[-1].place < self._plan.samples:
            self._open(len(self._starts) - 1)
        return step < self._starts[-1].step

    def samples_before(self, step: int) -> int:
        if not self.has(step):
            return self._plan.samples
        within = self._load(step)
        start = self._starts[self._window]
        return start.place - len(start.samples) + sum(map(len, self._batches[:within]))

    def batch(self, step: int) -> Numbers:
        within = self._load(step)
        return self._batches[within]

    def _load(self, step: int) -> int:
        """Make the window that holds a step the present one; gives the step's place in it."""
        window = bisect_right(self._starts, step, key=lambda start: start.step) - 1
        if window != self._window:
            self._open(window)
        return step - self._starts[window].step

    def _window_length(self) -> int:
        """Samples that a window adds: those of `WINDOW_STEPS` steps by the mean cost of the first few."""
        few = min(FEW, self._plan.samples)
        if few == 0:
            return 1
        mean = max(1.0, float(self._plan.draw_with_costs(0, few)[1].mean()))
        return max(1, min(WINDOW_SAMPLES, round(WINDOW_STEPS * self._budget / mean)))

    def _open(self, window: int) -> None:
        start = self._starts[window]
        stop = min(start.place + self._length, self._plan.samples)
        samples, costs = self._plan.draw_with_costs(start.place, stop)
        samples, costs = np.concatenate([start.samples, samples]), np.concatenate([start.costs, costs])
        key = (self._spec.seed, self._plan.epoch, window)
        cut = cut_by_cost(costs, self._budget, self._spec.group_above, key, last=stop == self._plan.samples)
        self._batches = [samples[each] for each in cut.batches]
        self._window = window
        if window == len(self._starts) - 1:
            left = cut.left
            self._starts.append(_Window(start.step + len(cut.batches), stop, samples[left], costs[left]))
