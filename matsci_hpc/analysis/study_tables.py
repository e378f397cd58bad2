"""The tables of the report of a scaling study, as people read them."""

import math
from collections.abc import Callable

from matsci_hpc.analysis.sheet import Cell, Sheet
from matsci_hpc.analysis.words import MISSING, number, percent
from matsci_hpc.preflight.words import counted
from matsci_hpc.scaling.efficiency import Estimate
from matsci_hpc.scaling.fitting import Interval
from matsci_hpc.scaling.laws import LAWS, TITLES, LawFit, Laws
from matsci_hpc.scaling.study import ENOUGH_REPEATS, Study

UP_TO = "\N{EN DASH}"
INFINITE = "\N{INFINITY}"
MINUS = "\N{MINUS SIGN}"


def sheets(study: Study) -> list[Sheet]:
    """All tables about scaling, what matters most first."""
    if not study.findings:
        return []
    return [_summary(study), _points(study), _laws(study), _residuals(study)]


def _summary(study: Study) -> Sheet:
    columns = (
        "series", "ranks", "throughput on the most ranks", "efficiency there", "preferred law",
        "predicted from the others, over measured", "largest throughput expected at",
    )  # fmt: skip
    rows = []
    for each in study.findings:
        last, best = each.efficiency.points[-1], each.laws.best
        universal = next((fit for fit in each.laws.fits if fit.law == "universal"), None)
        rows.append(
            (
                Cell(each.series.name),
                Cell(f"{each.series.ranks[0]} to {each.series.ranks[-1]}"),
                _estimate(last.throughput, number, f" {each.series.unit}"),
                _estimate(last.efficiency, percent),
                _preferred(each.laws),
                _held_out(best),
                _peak(universal),
            )
        )
    few = any(1 < count < ENOUGH_REPEATS for each in study.findings for count in each.series.repeats)
    caption = "Intervals of 95 %" + (f", narrower than that below {ENOUGH_REPEATS} repeats" if few else "")
    caption += ". A law is preferred to the others if its AICc is less by 2 at least."
    return Sheet("Summary", caption, columns, tuple(rows), frozenset({0, 4}))


def _preferred(laws: Laws) -> Cell:
    """The law that the measurements choose, or that they choose none and which one is drawn."""
    if laws.preferred is not None:
        return Cell(TITLES[laws.preferred.law])
    return Cell("none", f"drawn: {TITLES[laws.best.law]}") if laws.best is not None else Cell(MISSING)


def _points(study: Study) -> Sheet:
    hours = dict.fromkeys(each.efficiency.hours_unit for each in study.findings)
    columns = (
        "series", "ranks", "nodes", "repeats", "throughput", "speed-up", "efficiency", "Karp-Flatt", " or ".join(hours),
    )  # fmt: skip
    rows = [
        (
            Cell(each.series.name),
            Cell(number(point.ranks)),
            Cell(number(point.nodes)),
            Cell(number(point.repeats)),
            _estimate(point.throughput, number),
            _estimate(point.speedup, number),
            _estimate(point.efficiency, percent),
            _estimate(point.karp_flatt, number),
            Cell(number(point.node_hours)),
        )
        for each in study.findings
        for point in each.efficiency.points
    ]
    bases = dict.fromkeys(counted(each.efficiency.base_ranks, "rank") for each in study.findings)
    units = dict.fromkeys(each.series.unit for each in study.findings)
    caption = (
        f"Throughput in {' or '.join(units)}, mean of the repeats; speed-up and efficiency against "
        f"{' or '.join(bases)}. The Karp-Flatt metric is the share of the time that more ranks did not make "
        "shorter: the same for all ranks, it is work that is not parallel; growing, it is overhead."
    )
    return Sheet("Throughput and efficiency", caption, columns, tuple(rows))


def _laws(study: Study) -> Sheet:
    columns = (
        "series", "law", "one rank", "sigma", "kappa", "spread", "AICc", "most ranks predicted",
        "largest throughput at",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for each in study.findings:
        for fit, difference in zip(each.laws.fits, each.laws.differences(), strict=True):
            values, intervals = fit.parameters, fit.intervals
            rows.append(
                (
                    Cell(each.series.name),
                    Cell(TITLES[fit.law]),
                    Cell(number(values["rate"]), _interval(intervals.get("rate"))),
                    Cell(number(values["sigma"], 3), _interval(intervals.get("sigma"))),
                    Cell(number(values.get("kappa"), 3), _interval(intervals.get("kappa"))),
                    Cell(percent(fit.fit.spread)),
                    Cell(MISSING if difference is None else f"+{difference:.1f}" if difference else "least"),
                    _held_out(fit),
                    _peak(fit),
                )
            )
        rows += [
            (Cell(each.series.name), Cell(TITLES[law], reason), *[Cell(MISSING)] * 7)
            for law, reason in each.laws.not_fitted.items()
        ]
    caption = (
        "Fitted to all repeats by least squares of relative errors. Amdahl: sigma is the serial share of the work; "
        "Gustafson: the serial share of the time; universal scalability law: sigma is waiting for what is shared, "
        "kappa is exchange between all pairs. Spread: standard deviation of a measurement from the law. AICc: "
        "difference of Akaike's criterion from the least; below 2 it prefers neither."
    )
    return Sheet("Laws of scaling", caption, columns, tuple(rows), frozenset({0, 1}))


def _residuals(study: Study) -> Sheet:
    columns = ("series", "ranks", "measured", *(TITLES[law] for law in LAWS))
    rows = []
    for each in study.findings:
        fits = {fit.law: fit for fit in each.laws.fits}
        for ranks, mean in zip(each.series.ranks.tolist(), each.series.means.tolist(), strict=True):
            beside = [
                _signed(mean / float(fits[law].throughput(ranks)) - 1) if law in fits else MISSING for law in LAWS
            ]
            rows.append((Cell(each.series.name), Cell(number(ranks)), Cell(number(mean)), *map(Cell, beside)))
    caption = "Mean of the repeats over what each fitted law says, less 1. Signs in runs mean that a law does not hold."
    return Sheet("Residuals of the laws", caption, columns, tuple(rows))


def _estimate(estimate: Estimate | None, form: Callable[[float], str], unit: str = "") -> Cell:
    if estimate is None:
        return Cell(MISSING)
    if estimate.low is None or estimate.high is None:
        return Cell(form(estimate.value) + unit)
    return Cell(form(estimate.value) + unit, f"{form(estimate.low)} {UP_TO} {form(estimate.high)}")


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{_maybe_infinite(interval.low)} {UP_TO} {_maybe_infinite(interval.high)}"


def _maybe_infinite(value: float) -> str:
    return number(float(f"{value:.3g}"), 3) if math.isfinite(value) else INFINITE


def _held_out(fit: LawFit | None) -> Cell:
    if fit is None or fit.held_out is None:
        return Cell(MISSING)
    prediction = fit.held_out.prediction
    remark = f"{number(prediction.throughput)} for {number(fit.held_out.measured)} measured"
    return Cell(_signed(fit.held_out.error), remark)


def _peak(fit: LawFit | None) -> Cell:
    if fit is None or fit.peak_ranks is None:
        return Cell(MISSING)
    ranks = _whole(fit.peak_ranks)
    return Cell(f"{ranks} {'rank' if ranks == '1' else 'ranks'}", _whole_interval(fit.peak) if fit.peak else "")


def _whole(value: float) -> str:
    return number(round(value)) if value < 1e6 else INFINITE if math.isinf(value) else number(float(f"{value:.2g}"))


def _whole_interval(interval: Interval) -> str:
    return f"{_whole(interval.low)} {UP_TO} {_whole(interval.high)}"


def _signed(fraction: float) -> str:
    shown = round(fraction, 3)
    return f"{'+' if shown > 0 else MINUS if shown < 0 else ''}{percent(abs(shown))}"
