"""Metrics of an evaluation, one to a line, as a model card has them."""

from collections.abc import Mapping
from typing import Any

from matsci_hpc.analysis.words import unit_of

NOT_METRICS = {"samples", "atoms", "unit", "classes"}
"""Entries of a target's metrics that say what the others are of."""


def metric_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """A line for each metric: target with its samples, name of the metric, value with its unit."""
    rows = []
    for name, found in metrics.items():
        whose = f"{name} ({found.get('samples', 0):,} samples)"
        for key, value in found.items():
            if key in NOT_METRICS or not isinstance(value, int | float):
                continue
            unit = unit_of(key, found.get("unit"))
            rows.append((whose, key, f"{value:.4g} {unit}".strip()))
            whose = ""
        if whose:  # no sample carries it
            rows.append((whose, "", ""))
    return rows
