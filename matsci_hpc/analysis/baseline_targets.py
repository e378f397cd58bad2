"""Targets that baselines are made for: those of a data set, and those that follow from its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.config.train import Target
from matsci_hpc.errors import UserInputError
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.labels import target_values
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.derived import Derivation, derivation_of


@dataclass(frozen=True, slots=True)
class BaselineTarget:
    """One target.

    Attributes:
        name, spec: of it.
        derivation: how it follows from a number of the data set, if it does.
    """

    name: str
    spec: TargetSpec
    derivation: Derivation | None = None

    def values(self, collection: Collection, samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values [n] of samples: NaN where it is absent, -1 where a class is."""
        if self.derivation is None:
            return target_values(collection, self.name, samples).astype(np.float64)
        stored = target_values(collection, self.derivation.source, samples)
        return self.derivation.of_stored(stored).astype(np.float64)


def chosen_targets(
    collection: Collection, names: Sequence[str], derived: Mapping[str, Target]
) -> tuple[BaselineTarget, ...]:
    """The targets that are named, or all that can be, and then what is derived that was not named.

    Args:
        collection: the data.
        names: empty for all that are numbers or labels.
        derived: how targets follow from numbers of the data, by name.

    Raises:
        UserInputError: there is no such target, or no baseline of it can be made.
    """
    found = {
        name: BaselineTarget(
            name, TargetSpec(kind="binary"), derivation_of(name, section, collection.targets, f"--derive {name}")
        )
        for name, section in derived.items()
    }
    known = collection.targets
    every = [*names] or [name for name, spec in known.items() if _usable(spec)]
    for name in every:
        if name in found:
            continue
        if name not in known:
            raise UserInputError(
                f"--target {name}: the data set has no such target; it has: {', '.join(known) or 'none'}; --derive "
                "makes yes-or-no targets of numbers"
            )
        if not _usable(known[name]):
            raise UserInputError(f"--target {name}: baselines are of numbers, flags and classes of the whole structure")
    return tuple(found.get(name) or BaselineTarget(name, known[name]) for name in dict.fromkeys([*every, *found]))


def _usable(spec: TargetSpec) -> bool:
    return spec.is_number and spec.kind in {"regression", "binary", "class"}
