"""What a label is: its kind and unit, as the manifest of a data set stores it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

MAX_TARGETS = 64
"""Targets of a data set: the index marks with a bit each which ones a sample carries."""
MAX_CLASSES = 2**15 - 1
"""Classes of a target: their numbers are stored as int16."""
MAX_SPLITS = 2**8
"""Splits of a data set: their numbers are stored as uint8."""

TargetKind = Literal["regression", "binary", "class", "multilabel"]


class TargetSpec(BaseModel):
    """One target of a data set.

    Values are stored per sample as float32 (regression, NaN = absent), float32 0/1 (binary, NaN = absent),
    int16 (class, -1 = absent) or uint8 [classes] (multilabel, never absent).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: TargetKind
    unit: str | None = None
    """Physical unit of a regression target, such as eV or eV/atom."""
    classes: tuple[str, ...] | None = None
    """Names of the classes (class) or of the labels (multilabel), in the order of their numbers."""
