"""The tables of the report of a comparison, as people read them."""

from collections import Counter
from collections.abc import Callable, Iterator
from statistics import fmean

from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.analysis.study_tables import MINUS, UP_TO
from matsci_hpc.analysis.words import GAP, MISSING, duration, number
from matsci_hpc.comparison.findings import Against, ArmValues, Findings, Point
from matsci_hpc.comparison.plan import setting_of
from matsci_hpc.preflight.words import counted

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def comparison_sheets(findings: Findings) -> list[Sheet]:
    """All tables, what matters most first."""
    found = [_compared(findings), _means(findings), _budget(findings)]
    if findings.pretraining:
        found.append(_pretraining(findings))
    if findings.comparison.tune:
        found.append(_tuned(findings))
    return found


def _compared(findings: Findings) -> Sheet:
    reference = findings.comparison.reference
    columns = (
        "metric", "training samples", "arm", "arm, mean", f"{reference}, mean", "difference", "in per cent", "p",
        "verdict",
    )  # fmt: skip
    rows = [_compared_row(point, each, point.arm(reference)) for point in findings.points for each in point.against]
    caption = (
        f"Each arm against {reference}, seed by seed, on split {findings.comparison.split!r}, by the "
        f"{findings.comparison.weights} parameters. {directions(findings)} In small print: standard deviation of the "
        "runs, and the interval of 95 % of the mean difference by Student's t. p: paired t test; below it the same "
        "raised for the number of comparisons (Holm), and Wilcoxon's signed ranks. The verdict goes by Holm's p."
    )
    return Sheet("Comparison", caption, columns, tuple(rows), frozenset({0, 2, 8}))


def _compared_row(point: Point, found: Against, reference: ArmValues | None) -> tuple[Cell, ...]:
    paired = found.paired
    return (
        Cell(_titled(point)),
        Cell(number(point.samples)),
        Cell(found.arm, counted(paired.seeds, "seed")),
        _mean(point.arm(found.arm)),
        _mean(reference),
        Cell(signed(paired.difference), _ends(paired.low, paired.high, signed)),
        Cell(_share(paired.relative), _ends(paired.relative_low, paired.relative_high, _share)),
        Cell(_p(paired.p), f"Holm {_p(found.holm)}, Wilcoxon {_p(paired.wilcoxon)}"),
        Cell(found.verdict),
    )


def directions(findings: Findings) -> str:
    """Which values of each metric are better, in a sentence."""
    known = {point.title: point.better for point in findings.points}
    return "; ".join(f"{title}: {better} is better" for title, better in known.items()) + "."


def _means(findings: Findings) -> Sheet:
    arms = tuple(findings.comparison.arms)
    others = list(dict.fromkeys(each.name for each in findings.baselines))
    columns = ("metric", "training samples", *arms, "no learning", *others)
    rows = []
    for point in findings.points:
        row = [Cell(_titled(point)), Cell(number(point.samples))]
        row += [_mean(point.arm(arm)) for arm in arms]
        row.append(Cell(number(point.untrained)))
        row += [Cell(number(_baseline(findings, point, name))) for name in others]
        rows.append(tuple(row))
    caption = (
        f"Mean and standard deviation over the seeds. {directions(findings)} No learning: predicting the mean of the "
        "training set for every sample, or its commonest class."
    )
    if others:
        caption += f" The columns after it are from {findings.comparison.baselines}."
    return Sheet("Arms and baselines", caption, columns, tuple(rows))


def _baseline(findings: Findings, point: Point, name: str) -> float | None:
    """What another one reached at this size, else at all sizes."""
    mine = [each for each in findings.baselines if each.name == name and each.is_of(point.metric)]
    exact = next((each.value for each in mine if each.train_samples == point.samples), None)
    return exact if exact is not None else next((each.value for each in mine if each.train_samples is None), None)


def _budget(findings: Findings) -> Sheet:
    columns = (
        "arm", "training samples", "runs", "steps", "samples seen", "evaluations", "test samples", "parameters of step",
        "node-hours of a run", "all runs",
    )  # fmt: skip
    rows = []
    for arm in findings.comparison.arms:
        for size in dict.fromkeys(each.run.size for each in findings.taken):
            mine = [each for each in findings.taken if each.run.arm == arm and each.run.size == size]
            if not mine:
                continue
            every = [each for each in findings.results if each.run.arm == arm and each.run.size == size]
            rows.append(
                (
                    Cell(arm),
                    Cell(number(mine[0].train_samples)),
                    Cell(number(len(mine))),
                    *(_same(each.facts[name] for each in mine) for name in ("steps", "samples_seen", "evaluations")),
                    Cell(number(mine[0].test_samples)),
                    _same(each.weights_step for each in mine),
                    Cell(number(fmean(each.node_hours for each in mine), 3)),
                    Cell(number(sum(each.node_hours for each in every), 3)),
                )
            )
    caption = (
        "What each run of an arm did, as its records say. Batch, model, precision, data and evaluations are the same "
        "in all arms, or the comparison is refused. Node-hours: training and evaluation, without the start of the "
        "program" + (", and in the last column every trial of the tuning." if findings.comparison.tune else ".")
    )
    return Sheet("Budget", caption, columns, tuple(rows))


def _pretraining(findings: Findings) -> Sheet:
    columns = ("arm", "begins with", "steps", "samples seen", "time of training", "nodes", "node-hours")
    rows = [
        (
            Cell(arm),
            Cell(cost.run, cost.problem and "not known"),
            Cell(number(cost.steps)),
            Cell(number(cost.samples_seen)),
            Cell(duration(cost.time_s)),
            Cell(number(cost.nodes)),
            Cell(number(cost.node_hours, 3)),
        )
        for arm, costs in findings.pretraining.items()
        for cost in costs
    ]
    caption = (
        "Spent before, once for all runs of the arm, and no part of the equal budget: samples and time up to the last "
        "line of that run, also where an earlier checkpoint of it was taken."
    )
    return Sheet("Cost of pretraining", caption, columns, tuple(rows), frozenset({0, 1}))


def _tuned(findings: Findings) -> Sheet:
    columns = ("arm", "training samples", "setting", "seeds", "held out, mean", "taken")
    groups: dict[tuple[str, int, int], list[tuple[float, str]]] = {}
    taken = {each.run.name for each in findings.taken}
    chosen: set[tuple[str, int, int]] = set()
    for each in findings.results:
        key = (each.run.arm, each.train_samples, each.run.trial)
        value = each.validation[0]
        groups.setdefault(key, [])
        if value is not None:
            groups[key].append((value, setting_of(each.run)))
        if each.run.name in taken:
            chosen.add(key)
    settings = {run.trial: setting_of(run) for run in (*(each.run for each in findings.results), *findings.diverged)}
    sizes = {each.run.size: each.train_samples for each in findings.results}
    lost = Counter((run.arm, sizes[run.size], run.trial) for run in findings.diverged if run.size in sizes)
    for key in lost:
        groups.setdefault(key, [])
    order = list(findings.comparison.arms)
    rows = [
        (
            Cell(key[0]),
            Cell(number(key[1])),
            Cell(settings[key[2]]),
            Cell(number(len(values)), f"{lost[key]} diverged" if lost[key] else ""),
            Cell(number(fmean(value for value, _ in values)) if values else MISSING),
            Cell("taken" if key in chosen else ""),
        )
        for key, values in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0]))
    ]
    metric = findings.points[0].title
    caption = f"Every arm had the same trials. Chosen by {metric} on the held-out split, never by the results above."
    return Sheet("Tuning", caption, columns, tuple(rows), frozenset({0, 2, 5}))


def signed(value: float) -> str:
    """A number with its sign."""
    return f"{'+' if value > 0 else MINUS if value < 0 else ''}{number(abs(value))}"


def _share(fraction: float | None) -> str:
    if fraction is None:
        return MISSING
    shown = round(100 * fraction, 1)
    return f"{'+' if shown > 0 else MINUS if shown < 0 else ''}{abs(shown):.1f}{GAP}%"


def _mean(found: ArmValues | None) -> Cell:
    if found is None:
        return Cell(MISSING)
    remark = counted(1, "seed") if found.spread is None else f"{PLUS_MINUS} {number(found.spread, 3)}"
    return Cell(number(found.mean), remark)


def _ends(low: float | None, high: float | None, form: Callable[[float], str]) -> str:
    return "" if low is None or high is None else f"{form(low)} {UP_TO} {form(high)}"


def _p(p: float | None) -> str:
    if p is None:
        return MISSING
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def _titled(point: Point) -> str:
    return f"{point.title}, {point.unit}" if point.unit else point.title


def _same(values: Iterator[object]) -> Cell:
    """A number that all runs share, or its range."""
    known = sorted({int(value) for value in values if isinstance(value, int | float)})
    if not known:
        return Cell(MISSING)
    return Cell(number(known[0]) if len(known) == 1 else f"{number(known[0])} to {number(known[-1])}")
