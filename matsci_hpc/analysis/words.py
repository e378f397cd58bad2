"""Numbers and results of a run as people read them."""

import math
from dataclasses import dataclass
from typing import Any

from matsci_hpc.analysis.records import Record, as_number

MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
GAP = "\N{NARROW NO-BREAK SPACE}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

LOWER_IS_BETTER = frozenset({"loss", "mae", "rmse", "mae_per_atom", "rmse_per_atom"})
HIGHER_IS_BETTER = frozenset({"accuracy", "balanced_accuracy", "auroc", "f1", "f1_macro", "exact", "r2", "cosine"})
MEASURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "f1": "F1 score",
    "f1_macro": "F1 score, mean of classes or labels",
    "exact": "all labels right",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "mae_per_atom": "mean absolute error per atom",
    "rmse_per_atom": "root mean square error per atom",
    "r2": "R²",
    "cosine": "mean cosine",
    "loss": "loss",
}
BASELINE_OF = {
    "accuracy": "chance",
    "mae": "baseline_mae",
    "rmse": "baseline_rmse",
    "mae_per_atom": "baseline_mae_per_atom",
    "rmse_per_atom": "baseline_rmse_per_atom",
}
"""Which key holds what a model that has learned nothing would reach."""


PER_ATOM = "_per_atom"
"""End of the keys of errors that are told per atom."""


def unit_of(key: str, unit: Any) -> str:
    """The unit of a metric of a target that is in `unit`; empty where it has none."""
    if not unit or not {"mae", "rmse"} & set(key.split("_")):
        return ""
    return f"{unit}/atom" if key.endswith(PER_ATOM) else str(unit)


def number(value: Any, digits: int = 4) -> str:
    """Format with `digits` significant digits, thin spaces between thousands and powers of ten if needed.

    >>> number(0.03218), number(2.5), number(120.04)
    ('0.03218', '2.500', '120.0')
    """
    value = as_number(value)
    if value is None:
        return MISSING
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", GAP)
    if abs(value) < 1e-3 or abs(value) >= 1e15:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa} {TIMES} 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace(",", GAP)


def percent(fraction: float | None) -> str:
    """Format a fraction as percent, with one decimal where that says something."""
    if fraction is None:
        return MISSING
    hundred = 100 * fraction
    return f"{hundred:.0f}{GAP}%" if hundred == round(hundred) or abs(hundred) >= 99.95 else f"{hundred:.1f}{GAP}%"


def duration(time_s: float | None) -> str:
    """Format a time with its two largest units.

    >>> duration(4380), duration(0.0123)
    ('1\u202fh 13\u202fmin', '12.3\u202fms')
    """
    if time_s is None:
        return MISSING
    if 0 < time_s < 1e-3:
        return f"{time_s * 1e6:.3g}{GAP}µs"
    if 0 < time_s < 1:
        return f"{time_s * 1e3:.3g}{GAP}ms"
    if time_s < 60:
        return f"{time_s:.3g}{GAP}s"
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next(index for index, (count, _) in enumerate(units) if count)
    return " ".join(f"{count}{GAP}{unit}" for count, unit in units[first : first + 2] if count)


def size(size_bytes: float | None) -> str:
    """Format bytes in decimal units (1 GB = 10⁹ bytes)."""
    if size_bytes is None:
        return MISSING
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g}{GAP}{unit}"
    return f"{size_bytes:.0f}{GAP}bytes"


def energy(joules: float) -> str:
    """Format energy in joules, from 0.1 kWh on in kWh (1 kWh = 3.6 MJ)."""
    return f"{number(joules, 3)}{GAP}J" if joules < 3.6e5 else f"{number(joules / 3.6e6, 3)}{GAP}kWh"


def value_text(value: Any) -> str:
    """Format any JSON value on one line."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(value_text(item) for item in value)
    return str(value)


@dataclass(frozen=True)
class Verdict:
    """How well one target is predicted, beside what knowing nothing would give."""

    headline: str
    sentence: str
    filled: float | None = None
    """The result as a part of a bar from 0 to 1."""
    mark: float | None = None
    """Where on the same bar no learning would stand."""


def verdict(metrics: Record, samples: Any = None) -> Verdict:
    """Say in words what the metrics of one target mean."""
    known = {key: as_number(value) for key, value in metrics.items()}
    measured = (
        f"Measured on {number(samples)} held-out samples." if as_number(samples) else "Measured on held-out samples."
    )
    if known.get("mae") is not None:
        return _regression(known, measured, str(metrics.get("unit") or ""))
    if known.get("accuracy") is not None:
        return _classes(known, measured)
    if known.get("f1") is not None:
        exact = known.get("exact")
        whole = f" All labels of a sample are right for {percent(exact)}." if exact is not None else ""
        sentence = f"{measured} F1 over all labels; 1 is perfect.{whole}"
        return Verdict(f"F1 {number(known['f1'], 3)}", sentence, known["f1"])
    return Verdict(f"loss {number(known.get('loss'))}", measured)


def _classes(known: dict[str, float | None], measured: str) -> Verdict:
    accuracy, chance, classes = known["accuracy"] or 0.0, known.get("chance"), known.get("classes")
    sentence = measured
    if chance is not None:
        among = f" of {number(classes)} classes" if classes else " class"
        better = "" if accuracy > chance else " So far nothing useful has been learned."
        sentence += f" Always naming the commonest{among} would be right for {percent(chance)}.{better}"
    if known.get("auroc") is not None:
        sentence += f" AUROC {number(known['auroc'], 3)}, where 0.5 is guessing and 1 is perfect."
    return Verdict(f"{percent(accuracy)} right", sentence, accuracy, chance)


def _regression(known: dict[str, float | None], measured: str, unit: str) -> Verdict:
    mae, baseline = known["mae"] or 0.0, known.get("baseline_mae")
    in_unit = f"{GAP}{unit}" if unit else ""
    headline = f"{number(mae, 3)}{in_unit} off on average"
    sentence = measured
    if not baseline:
        return Verdict(headline, sentence)
    guess = "zero for every atom" if "cosine" in known else "the training mean for every sample"
    sentence += f" Predicting {guess} would be off by {number(baseline, 3)}{in_unit}"
    if mae < baseline:
        sentence += f", so {percent(1 - mae / baseline)} of that error is gone."
    else:
        sentence += ". So far nothing useful has been learned."
    if known.get("composition_mae") is not None:
        sentence += f" Energies of the elements alone would be off by {number(known['composition_mae'], 3)}{in_unit}."
    if known.get("cosine") is not None:
        sentence += f" Its direction is right by a mean cosine of {number(known['cosine'], 3)}, where 1 is perfect."
    if known.get("r2") is not None:
        sentence += f" R² {number(known['r2'], 3)}."
    return Verdict(headline, sentence, min(1.0, max(0.0, 1 - mae / baseline)), 0.0)
