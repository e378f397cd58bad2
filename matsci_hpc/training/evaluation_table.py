"""The metrics of an evaluation as tables in plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "samples": "samples",
    "atoms": "atoms",
    "loss": "loss",
    "mae": "MAE",
    "baseline_mae": "of mean",
    "composition_mae": "of composition",
    "rmse": "RMSE",
    "mae_per_atom": "MAE/atom",
    "baseline_mae_per_atom": "of mean",
    "rmse_per_atom": "RMSE/atom",
    "unit": "unit",
    "r2": "R2",
    "cosine": "cosine",
    "exact": "all labels",
    "accuracy": "accuracy",
    "chance": "of commonest",
    "balanced_accuracy": "balanced",
    "f1": "F1",
    "f1_macro": "macro F1",
    "auroc": "AUROC",
}
"""Head of the column of each metric."""
KINDS = ("mae", "cosine", "accuracy", "exact")
"""Metrics that tell the kinds of targets apart; each kind has a table of its own, since few columns fit two of them."""
WIDEST_NAME = 40
Metrics = Mapping[str, Any]


def evaluation_table(metrics: Mapping[str, Metrics]) -> str:
    """A row for each target, and a column for each metric that any target of its kind has.

    Args:
        metrics: by target.
    """
    groups: dict[str, list[str]] = {key: [] for key in (*KINDS, "")}
    for name, own in metrics.items():
        groups[_kind(own)].append(name)
    return "\n".join(_table(names, metrics) for names in groups.values() if names)


def _kind(own: Metrics) -> str:
    """The metric that tells the kind of a target; vectors have a cosine beside their errors."""
    return "cosine" if "cosine" in own else next((key for key in KINDS if key in own), "")


def _table(names: Sequence[str], metrics: Mapping[str, Metrics]) -> str:
    heads = COLUMNS | ({"baseline_mae": "of zero"} if _kind(metrics[names[0]]) == "cosine" else {})
    keys = [key for key in COLUMNS if any(metrics[name].get(key) is not None for name in names)]
    rows = [["target", *(heads[key] for key in keys)]]
    rows += [[_short(name), *(_text(metrics[name].get(key)) for key in keys)] for name in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for first, *rest in rows
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
