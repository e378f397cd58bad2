"""What a label is: its kind, shape and unit, as the manifest of a data set stores it."""

import re
from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

MAX_TARGETS = 64
"""Targets of a data set: the index marks with a bit each which ones a sample carries."""
MAX_CLASSES = 2**15 - 1
"""Classes of a target: their numbers are stored as int16."""
MAX_SPLITS = 2**8
"""Splits of a data set: their numbers are stored as uint8."""
ATOM_FIELDS = frozenset({"atomic_number", "position", "degree"})
"""What a target of every atom cannot be called, because it lies beside these arrays in a shard."""
NOT_LEARNED = "tensors, and vectors of a whole structure, are stored and read, but not yet trained on"
"""What to tell who asks to train on such a target."""

PER_ATOM = re.compile(r"\s*(?:/|per\s+)\s*atom$")
"""The end of a unit of values per atom."""

TargetKind = Literal["regression", "binary", "class", "multilabel"]


class TargetSpec(BaseModel):
    """One target of a data set.

    Values are stored per sample as float32 (regression, NaN = absent), float32 0/1 (binary, NaN = absent),
    int16 (class, -1 = absent) or uint8 [classes] (multilabel, never absent). A regression target can be a vector or
    tensor, float32 [*shape], and can belong to every atom of the sample, float32 [atoms, *shape]; where it is absent
    all of its numbers are NaN.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: TargetKind
    unit: str | None = None
    """Physical unit of a regression target, such as eV or eV/atom."""
    classes: tuple[str, ...] | None = None
    """Names of the classes (class) or of the labels (multilabel), in the order of their numbers."""
    shape: tuple[int, ...] = ()
    """Of one value: () is a number, (3,) a vector, (3, 3) a tensor."""
    per_atom: bool = False
    """Whether every atom has a value, such as a force."""

    @model_validator(mode="after")
    def _numbers_alone_have_a_shape(self) -> Self:
        if not self.is_number and self.kind != "regression":
            raise ValueError(f"a {self.kind} target is one value per structure: shape and per_atom are for regression")
        if any(length < 1 for length in self.shape):
            raise ValueError(f"shape {list(self.shape)}: every length is at least 1")
        return self

    @property
    def is_number(self) -> bool:
        """Whether a sample has one number or label, not a tensor nor one value per atom."""
        return not self.shape and not self.per_atom

    @property
    def is_learnable(self) -> bool:
        """Whether training can learn it: one number or label of a sample, or a number or vector of every atom."""
        return self.is_number or (self.per_atom and self.shape in {(), (3,)})

    def value_shape(self, atoms: int) -> tuple[int, ...]:
        """Shape of the value of a structure with so many atoms; of regression targets."""
        return (atoms, *self.shape) if self.per_atom else self.shape

    # What was there before shapes looks as it did before them: manifests and hashes of earlier data sets stay.

    @model_serializer(mode="wrap")
    def _without_usual_shape(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if not self._is_usual(name)}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if not self._is_usual(name)]

    def _is_usual(self, name: str | None) -> bool:
        return (name == "shape" and not self.shape) or (name == "per_atom" and not self.per_atom)
