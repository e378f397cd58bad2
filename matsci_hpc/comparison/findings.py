"""What a comparison says: for each metric and size the arms side by side, and each against the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from matsci_hpc.comparison.baselines import Baseline
from matsci_hpc.comparison.metrics import Direction, direction_of, title_of
from matsci_hpc.comparison.plan import ArmRun
from matsci_hpc.comparison.pretraining import PretrainingCost
from matsci_hpc.comparison.results import Result
from matsci_hpc.comparison.statistics import SIGNIFICANT, Paired, Verdict, compare_pairs, holm, spread
from matsci_hpc.config.comparison import ComparisonConfig, Metric


@dataclass(frozen=True, slots=True)
class ArmValues:
    """An arm at one size.

    Attributes:
        arm: its name.
        seeds, values: of its runs, in the order of the seeds of the comparison.
        mean: of the values.
        spread: their standard deviation; None of one.
    """

    arm: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    spread: float | None


@dataclass(frozen=True, slots=True)
class Against:
    """An arm against the reference.

    Attributes:
        arm: its name.
        paired: the comparison.
        holm: its p value, raised for the number of comparisons of the whole table.
    """

    arm: str
    paired: Paired
    holm: float | None = None

    @property
    def verdict(self) -> Verdict:
        """That of its own interval, if it survives the other comparisons of the table."""
        return self.paired.verdict if self.holm is not None and self.holm < SIGNIFICANT else "cannot be told"


@dataclass(frozen=True, slots=True)
class Point:
    """One metric at one size of the training set.

    Attributes:
        metric: what is compared.
        title: of it.
        better: which values are.
        unit: of it, maybe empty.
        samples: of the training set.
        arms: that have a run here, in the order of the config.
        against: those that have a seed in common with the reference.
        untrained: what predicting the mean or the commonest class would reach; None where unknown.
    """

    metric: Metric
    title: str
    better: Direction
    unit: str
    samples: int
    arms: tuple[ArmValues, ...]
    against: tuple[Against, ...]
    untrained: float | None

    def arm(self, name: str) -> ArmValues | None:
        """An arm, if it has a run here."""
        return next((each for each in self.arms if each.arm == name), None)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a comparison has found.

    Attributes:
        comparison: its config.
        points: metric by metric, sizes ascending.
        results: of all complete runs.
        taken: those of them that are compared: of each arm and size the trial that was chosen.
        pretraining: by arm, the runs that it began with.
        baselines: results of others.
        incomplete: name of a run, and why it is not among the results.
        diverged: those of them that came to no finite number.
        notes: what a reader should know before trusting the numbers.
    """

    comparison: ComparisonConfig
    points: tuple[Point, ...]
    results: tuple[Result, ...]
    taken: tuple[Result, ...]
    pretraining: Mapping[str, Sequence[PretrainingCost]]
    baselines: tuple[Baseline, ...]
    incomplete: Mapping[str, str]
    diverged: tuple[ArmRun, ...]
    notes: tuple[str, ...]


def find_points(comparison: ComparisonConfig, taken: Sequence[Result]) -> tuple[Point, ...]:
    """Compare the arms, metric by metric and size by size."""
    sizes = {result.run.size: result.train_samples for result in taken}
    points = [
        _point(comparison, place, sizes[size], [each for each in taken if each.run.size == size])
        for place in range(len(comparison.metrics))
        for size in sorted(sizes, key=lambda size: (sizes[size], str(size)))
    ]
    raised = iter(holm([each.paired.p for point in points for each in point.against]))
    return tuple(
        replace(point, against=tuple(replace(each, holm=next(raised)) for each in point.against)) for point in points
    )


def _point(comparison: ComparisonConfig, place: int, samples: int, taken: Sequence[Result]) -> Point:
    metric = comparison.metrics[place]
    better = direction_of(metric)
    by_arm: dict[str, dict[int, float]] = {}
    for result in taken:
        by_arm.setdefault(result.run.arm, {})[result.run.seed] = result.values[place]
    arms = []
    for arm in comparison.arms:
        if values := by_arm.get(arm):
            seeds = tuple(seed for seed in comparison.seeds if seed in values)
            numbers = tuple(values[seed] for seed in seeds)
            arms.append(ArmValues(arm, seeds, numbers, fmean(numbers), spread(numbers)))
    reference = by_arm.get(comparison.reference, {})
    against = []
    for each in arms:
        both = [seed for seed in each.seeds if seed in reference]
        if each.arm != comparison.reference and both:
            values = by_arm[each.arm]
            paired = compare_pairs([values[seed] for seed in both], [reference[seed] for seed in both], better)
            against.append(Against(each.arm, paired))
    untrained = [value for result in taken if (value := result.untrained[place]) is not None]
    return Point(
        metric=metric,
        title=title_of(metric),
        better=better,
        unit=next((result.units[place] for result in taken), ""),
        samples=samples,
        arms=tuple(arms),
        against=tuple(against),
        untrained=fmean(untrained) if untrained else None,
    )
