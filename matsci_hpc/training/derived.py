"""Targets that follow from another one while training, such as metal or not from the band gap."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.train import Target
from matsci_hpc.errors import UserInputError
from matsci_hpc.targets import TargetSpec

if TYPE_CHECKING:  # jobs are checked without torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Derivation:
    """Yes where a number lies on one side of a threshold; absent where the number is.

    Attributes:
        source: target of the data sets.
        threshold: in its unit; a value that equals it is on neither side.
        below: whether yes is below it, else above.
    """

    source: str
    threshold: float
    below: bool

    def of(self, values: "Tensor") -> "Tensor":
        """1 or 0 for each value of the source, in its type."""
        yes: Tensor = self._yes(values)
        return yes.to(values.dtype)

    def of_stored(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The same of float32 values as shards store them, NaN where they are."""
        yes: NDArray[np.bool_] = self._yes(values)
        return np.where(np.isnan(values), values, yes.astype(np.float32))

    def of_one_class(self, yes: int, samples: int) -> str | None:
        """What to tell a person if all training samples are yes, or all are no; else None.

        Args:
            yes: training samples that are it.
            samples: that carry the target.
        """
        if 0 < yes < samples:
            return None
        return (
            f"{_in_words(self.source, self.threshold, below=self.below)}, and all {samples:,} training samples are "
            f"{'yes' if yes else 'no'}: there is nothing to tell apart; choose another threshold"
        )

    def _yes(self, values: Any) -> Any:
        # As float32, as which values are stored, so that one that equals it does so in runs of float64, too.
        threshold = float(np.float32(self.threshold))
        return values < threshold if self.below else values > threshold


def derivation_of(
    name: str, section: Target, targets: Mapping[str, TargetSpec], said: str | None = None
) -> Derivation | None:
    """How a target follows from another one, if its section says so.

    Args:
        name: of the target.
        section: of the config.
        targets: of the data sets.
        said: where the user did, for messages; None is the config of a run.

    Raises:
        UserInputError: its source is no number in the data sets, or they have a target of this name.
    """
    if section.of is None:
        return None
    numbers = sorted(other for other, spec in targets.items() if spec.kind == "regression" and spec.is_number)
    if section.of not in numbers:
        known = ", ".join(numbers) or "none"
        raise UserInputError(
            f"{said or f'targets.{name}.of'}: {section.of!r} is no number of a structure here; these are: {known}"
        )
    if name in targets:
        raise UserInputError(
            f"{said or f'targets.{name}'}: the data sets have a target of this name; call what is derived otherwise"
        )
    threshold = section.below if section.below is not None else section.above
    if threshold is None:
        raise AssertionError("the config lets no derived target go without a threshold")
    return Derivation(section.of, threshold, below=section.below is not None)


def derived_otherwise(there: Target | None, here: Target | None) -> str | None:
    """How a target of one name follows from another one in two configs, if not in the same way; else None."""
    before, now = _origin(there), _origin(here)
    return None if before == now else f"it is {before} there and {now} here"


def _origin(section: Target | None) -> str:
    if section is None or section.of is None:
        return "a target of the data sets"
    below = section.below is not None
    return _in_words(section.of, section.below if below else section.above, below=below)


def _in_words(source: str, threshold: float | None, *, below: bool) -> str:
    return f"yes where {source} is {'below' if below else 'above'} {threshold:g}"
