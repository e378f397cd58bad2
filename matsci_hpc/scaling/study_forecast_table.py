"""A forecast of a study as text for people, and as plain values."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from matsci_hpc.preflight.words import counted
from matsci_hpc.scaling.efficiency import Estimate
from matsci_hpc.scaling.prediction import Prediction
from matsci_hpc.scaling.prediction_table import basis_lines, limit_in_words, remark_lines, step_time
from matsci_hpc.scaling.study_forecast import Measurements, SeriesForecast, StudyForecast, remarks_of

COLUMNS = (
    ("ranks", 8),
    ("nodes", 7),
    ("graphs", 9),
    ("step", 10),
    ("measured", 10),
    ("interval of 95 %", 24),
    ("ratio", 7),
    ("efficiency", 12),
    ("measured", 10),
)


def render_study(found: StudyForecast, name: str) -> str:
    """The forecast as text.

    Args:
        found: what is predicted and measured.
        name: of the study, as it was asked for.
    """
    return "\n".join(line.rstrip() for line in _lines(found, name))


def _lines(found: StudyForecast, name: str) -> Iterator[str]:
    weak = found.study.scaling == "weak"
    yield f"{name}: " + ("weak scaling: the batch grows with the ranks" if weak else "strong scaling: one global batch")
    for each in found.series:
        yield ""
        if each.name:
            yield each.name
        yield f"{''.join(f'{name:>{width}}' for name, width in COLUMNS)}  limited by"
        yield from (_row(each, prediction) for prediction in each.forecast.predictions)
        yield ""
        yield from basis_lines(each.forecast)
    yield ""
    remarks = remarks_of(found.series)
    if not any(each.measured for each in found.series):
        remarks.append("no run of the study is complete, so nothing stands beside the predictions")
    yield from remark_lines(remarks)


def _row(series: SeriesForecast, each: Prediction) -> str:
    found = series.measured.get(each.ranks)
    ratio = series.ratio(each)
    share = None if found is None else found.efficiency
    cells = (
        f"{each.ranks:,}",
        f"{each.nodes:,}",
        f"{each.graphs:,.0f}",
        step_time(each.step_s),
        "-" if found is None else step_time(found.step_s.value),
        "-" if found is None else interval_in_words(found),
        "-" if ratio is None else f"{ratio:.2f}",
        f"{each.efficiency:.1%}",
        "-" if share is None else f"{share.value:.1%}",
    )
    numbers = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True))
    return f"{numbers}  {limit_in_words(each)}"


def interval_in_words(found: Measurements) -> str:
    """Of the measured step time; one run has none."""
    step = found.step_s
    if step.low is None or step.high is None:
        return counted(found.repeats, "run")
    return f"{step_time(step.low)} to {step_time(step.high)}"


def study_to_json(found: StudyForecast, name: str) -> dict[str, Any]:
    """All of it as plain values."""
    return {
        "study": name,
        "scaling": found.study.scaling,
        "series": [
            {
                "name": each.name,
                "labels": dict(each.labels),
                "ranks_per_node": each.forecast.ranks_per_node,
                "cost": asdict(each.forecast.cost),
                "links": asdict(each.forecast.links),
                "predictions": [
                    asdict(prediction) | {"measured": _measured(each, prediction)}
                    for prediction in each.forecast.predictions
                ],
                "remarks": each.forecast.remarks,
            }
            for each in found.series
        ],
    }


def _measured(series: SeriesForecast, each: Prediction) -> dict[str, Any] | None:
    found = series.measured.get(each.ranks)
    if found is None:
        return None
    return {
        "repeats": found.repeats,
        "step_s": _estimate(found.step_s),
        "efficiency": None if found.efficiency is None else _estimate(found.efficiency),
        "ratio": series.ratio(each),
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return asdict(estimate)
