"""The metrics of an evaluation as a table in plain text."""

from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "samples": "samples",
    "loss": "loss",
    "unit": "unit",
    "mae": "MAE",
    "baseline_mae": "of mean",
    "composition_mae": "of composition",
    "rmse": "RMSE",
    "mae_per_atom": "MAE/atom",
    "baseline_mae_per_atom": "of mean/atom",
    "rmse_per_atom": "RMSE/atom",
    "r2": "R2",
    "accuracy": "accuracy",
    "chance": "of commonest",
    "balanced_accuracy": "balanced",
    "exact": "all labels",
    "f1": "F1",
    "f1_macro": "macro F1",
    "auroc": "AUROC",
}
"""Head of the column of each metric."""
WIDEST_NAME = 40


def evaluation_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each target, and a column for each metric that any of them has.

    Args:
        metrics: by target.
    """
    keys = [key for key in COLUMNS if any(own.get(key) is not None for own in metrics.values())]
    rows = [["target", *(COLUMNS[key] for key in keys)]]
    rows += [[_short(name), *(_text(own.get(key)) for key in keys)] for name, own in metrics.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else _short(str(value))


def _short(name: str) -> str:
    """A name that leaves a line a line, whatever is in it."""
    shown = "".join(each if each.isprintable() else "?" for each in name)
    return shown if len(shown) <= WIDEST_NAME else f"{shown[: WIDEST_NAME - 3]}..."
