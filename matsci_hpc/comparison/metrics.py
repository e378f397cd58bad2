"""Metrics by name, as evaluations.jsonl has them: which values are better, and what a line says."""

from typing import Any, Literal

from matsci_hpc.analysis import words
from matsci_hpc.analysis.records import Record, as_mapping, as_number
from matsci_hpc.analysis.words import BASELINE_OF, HIGHER_IS_BETTER, LOWER_IS_BETTER
from matsci_hpc.config.comparison import Metric
from matsci_hpc.errors import UserInputError

Direction = Literal["lower", "higher"]


def direction_of(metric: Metric) -> Direction:
    """Whether lower or higher values are better. Names such as `baseline_mae` are known by their parts.

    Raises:
        UserInputError: neither the config nor the name tells.
    """
    if metric.better is not None:
        return metric.better
    parts = {metric.name, *metric.name.split("_")}
    if parts & LOWER_IS_BETTER:
        return "lower"
    if parts & HIGHER_IS_BETTER:
        return "higher"
    raise UserInputError(f"metric: whether {metric.name} is better lower or higher is not known; give better")


def title_of(metric: Metric) -> str:
    """Such as `band_gap mae`."""
    return metric.name if metric.target is None else f"{metric.target} {metric.name}"


def value_of(metric: Metric, line: Record) -> float | None:
    """What an evaluation found; None if that is no finite number.

    Raises:
        UserInputError: the evaluation has no such metric.
    """
    found = _metrics_of(metric, line)
    if metric.name not in found:
        known = [name for name, value in found.items() if as_number(value) is not None]
        targets = ", ".join(as_mapping(line.get("metrics")))
        what = f"target {metric.target} has {', '.join(known)}" if known else f"the targets are {targets}"
        raise UserInputError(f"metric: no {title_of(metric)} in evaluations.jsonl; {what}")
    return as_number(found[metric.name])


def untrained_value_of(metric: Metric, line: Record) -> float | None:
    """What the mean or the commonest class of the training set would reach, where the evaluation says it."""
    return as_number(_metrics_of(metric, line).get(BASELINE_OF.get(metric.name, "")))


def unit_of(metric: Metric, line: Record) -> str:
    """Unit of an error of a regression; empty where there is none."""
    unit: Any = _metrics_of(metric, line).get("unit")
    return words.unit_of(metric.name, unit) if isinstance(unit, str) else ""


def _metrics_of(metric: Metric, line: Record) -> Record:
    if metric.target is None:
        return {"loss": line.get("loss")}
    return as_mapping(as_mapping(line.get("metrics")).get(metric.target))
