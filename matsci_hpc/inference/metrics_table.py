"""Metrics of an evaluation as a table to read."""

from collections.abc import Mapping
from typing import Any

NOT_METRICS = {"samples", "unit", "classes"}
"""Entries of a target's metrics that say what the others are of."""


def metric_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """A line for each metric: target with its samples, name of the metric, value with its unit."""
    rows = []
    for name, found in metrics.items():
        whose = f"{name} ({found.get('samples', 0):,} samples)"
        for key, value in found.items():
            if key in NOT_METRICS or not isinstance(value, int | float):
                continue
            unit = _unit_of(key, str(found.get("unit") or ""))
            rows.append((whose, key, f"{value:.4g} {unit}".strip()))
            whose = ""
        if whose:  # no sample carries it
            rows.append((whose, "", ""))
    return rows


def metric_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The same in columns of plain text."""
    rows = metric_rows(metrics)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {whose:{widths[0]}}  {key:{widths[1]}}  {value}".rstrip() for whose, key, value in rows)


def _unit_of(metric: str, unit: str) -> str:
    """The unit of a metric of a target: errors have that of the target."""
    if not unit or not {"mae", "rmse"} & set(metric.split("_")):
        return ""
    return f"{unit}/atom" if metric.endswith("_per_atom") else unit
