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
            unit = f" {found['unit']}" if found.get("unit") and _has_unit(key) else ""
            rows.append((whose, key, f"{value:.4g}{unit}"))
            whose = ""
        if whose:  # no sample carries it
            rows.append((whose, "", ""))
    return rows


def metric_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The same in columns of plain text."""
    rows = metric_rows(metrics)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {whose:{widths[0]}}  {key:{widths[1]}}  {value}".rstrip() for whose, key, value in rows)


def _has_unit(metric: str) -> bool:
    return metric.rpartition("_")[2] in {"mae", "rmse"}
