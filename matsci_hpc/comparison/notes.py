"""What a reader should know before trusting the numbers of a comparison, and its verdicts in sentences."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from matsci_hpc.comparison.findings import Against, Point
from matsci_hpc.comparison.plan import ArmRun, setting_of
from matsci_hpc.comparison.pretraining import PretrainingCost, shared_data
from matsci_hpc.comparison.results import Result
from matsci_hpc.comparison.statistics import SIGNIFICANT
from matsci_hpc.config.comparison import ComparisonConfig
from matsci_hpc.preflight.words import counted

FEW_SEEDS = 5
"""Below this the t test leans on the assumption of normal differences, which so few cannot show."""


def verdict_of(point: Point, found: Against, reference: str) -> str:
    """One sentence by the p value after Holm: better, worse, or cannot be told."""
    paired = found.paired
    where = f"{point.title}, {counted(point.samples, 'training sample')}"
    words = {
        "better": f"{found.arm} is better than {reference}",
        "worse": f"{found.arm} is worse than {reference}",
        "cannot be told": f"whether {found.arm} is better or worse than {reference} cannot be told",
    }
    unit = f" {point.unit}" if point.unit else ""
    if paired.seeds == 1:
        return f"{where}: {found.arm} against {reference}: cannot be told from one seed."
    if paired.low is None or paired.high is None:
        return (
            f"{where}: {words['cannot be told']}: the difference is {paired.difference:+.4g}{unit} with each of "
            f"{counted(paired.seeds, 'seed')}, and without a spread there is no interval and no test."
        )
    but = ""
    if found.verdict != paired.verdict:
        but = (
            f" By itself its interval says {paired.verdict}, but this does not survive the number of comparisons "
            f"(Holm's p is {found.holm:.2g})."
        )
    share = "" if paired.relative is None else f" ({100 * paired.relative:+.1f} %)"
    return (
        f"{where}: {words[found.verdict]}: the difference is {paired.difference:+.4g}{unit}{share}, with 95 % "
        f"confidence between {paired.low:+.4g} and {paired.high:+.4g}{unit}, over {counted(paired.seeds, 'seed')}.{but}"
    )


def notes_of(
    comparison: ComparisonConfig,
    points: Sequence[Point],
    taken: Sequence[Result],
    pretraining: Mapping[str, Sequence[PretrainingCost]],
    incomplete: Mapping[str, str],
    diverged: Sequence[ArmRun] = (),
) -> list[str]:
    """All notes, what matters most first."""
    notes = [*_of_the_split(comparison, taken), *_of_diverged_runs(comparison, taken, diverged)]
    names = {run.name for run in diverged}
    missing = {name: reason for name, reason in incomplete.items() if name not in names}
    notes += [*_of_missing_runs(comparison, points, missing), *_of_pretraining(taken, pretraining)]
    notes += _of_statistics(points)
    if comparison.allow:
        notes.append(f"Allowed by the comparison to differ: {', '.join(comparison.allow)}.")
    return notes


def _of_the_split(comparison: ComparisonConfig, taken: Sequence[Result]) -> Iterator[str]:
    if any(each.run.training.data.held_out == comparison.split for each in taken):
        yield (
            f"The results are of split {comparison.split!r}, which the runs were evaluated on all along: whatever was "
            "chosen by that, such as a learning rate, makes them look better than they would be on other samples."
        )


def _of_diverged_runs(
    comparison: ComparisonConfig, taken: Sequence[Result], diverged: Sequence[ArmRun]
) -> Iterator[str]:
    """Which settings diverged, and with how many of the seeds: their other seeds are those that went well."""
    seeds = Counter((run.arm, run.size, run.trial) for run in diverged)
    settings = {(run.arm, run.size, run.trial): setting_of(run) for run in diverged}
    used = {(each.run.arm, each.run.size, each.run.trial) for each in taken}
    for place, count in seeds.items():
        arm, size, _ = place
        samples = f"{size:,}" if isinstance(size, int) else size
        setting = f", {settings[place]}" if settings[place] else ""
        where = f"{arm}, {samples} training samples{setting}"
        if count == len(comparison.seeds):
            yield f"{where}: diverged with every seed."
        else:
            with_taken = "; the numbers of this arm are of the other seeds" if place in used else ""
            yield f"{where}: diverged with {count} of {counted(len(comparison.seeds), 'seed')}{with_taken}."


def _of_missing_runs(
    comparison: ComparisonConfig, points: Sequence[Point], incomplete: Mapping[str, str]
) -> Iterator[str]:
    if incomplete:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(incomplete.items())[:3])
        more = f"; and {len(incomplete) - 3} more" if len(incomplete) > 3 else ""
        yield f"Not among the results, {counted(len(incomplete), 'run')}: {some}{more}."
    for point in points:
        alone = [each.arm for each in point.arms if each.arm != comparison.reference]
        if set(alone) - {each.arm for each in point.against}:
            yield (
                f"{point.title}, {counted(point.samples, 'training sample')}: an arm has no seed in common with "
                f"{comparison.reference}, so it is compared with nothing."
            )


def _of_pretraining(taken: Sequence[Result], pretraining: Mapping[str, Sequence[PretrainingCost]]) -> Iterator[str]:
    for arm, costs in pretraining.items():
        for cost in costs:
            if cost.problem:
                yield f"{arm}: what its pretraining cost is not known: {cost.problem}"
        first = next((each for each in taken if each.run.arm == arm), None)
        if first is not None and shared_data(list(costs), first.run.job.output):
            yield (
                f"{arm}: its pretraining learned from a data set that the runs learn from, too; see to it that it has "
                "not seen the samples of the split that the results are of."
            )
    if pretraining:
        yield (
            "The budget that is equal is that of the runs themselves. What pretraining cost stands in a table of its "
            "own and is no part of it."
        )


def _of_statistics(points: Sequence[Point]) -> Iterator[str]:
    pairs = [each.paired for point in points for each in point.against]
    if not pairs:
        return
    fewest = min(each.seeds for each in pairs)
    if fewest == 1:
        yield "Of one seed there is no spread, no interval and no test: nothing can be told from it."
    elif fewest < FEW_SEEDS:
        yield (
            f"With {fewest} seeds the t test and its interval rest on the differences being normally distributed, "
            f"which so few cannot show. Wilcoxon's test does not ask for that, and with {fewest} seeds its p is at "
            f"least {2.0 ** (1 - fewest):g}."
        )
    if any(each.seeds > 1 and each.low is None for each in pairs):
        yield (
            "Where the difference is the same with every seed, there is no spread to judge it by, so no interval "
            "and no test: the metric may go in steps too coarse to tell, or the arms may not differ at all."
        )
    if len(pairs) > 1:
        found = sum(each.p is not None and each.p < SIGNIFICANT for each in pairs)
        yield (
            f"{len(pairs)} comparisons were made, of which {found} {'has' if found == 1 else 'have'} p < "
            f"{SIGNIFICANT}; by chance alone {SIGNIFICANT * len(pairs):.2g} would. Holm's p values are raised for "
            "that, and the verdicts go by them."
        )
    yield (
        "Intervals and tests are about seeds: other parameters at the start, another order, another subset of the "
        "training data. The split that the results are of is the same in all runs, so they say nothing about other "
        "samples, data sets or settings."
    )
