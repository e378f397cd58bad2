"""One sample: a crystal, a molecule or a point cloud as plain arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.targets import TargetSpec

MAX_ATOMIC_NUMBER = 118
MIN_DISTANCE = 0.01
"""Angstrom. Two atoms nearer than this are one atom listed twice or a damaged file, never chemistry."""
MAX_COORDINATE = 1e5
"""Angstrom. Farther from the origin, single precision no longer tells points MIN_DISTANCE apart from each other."""
MIN_VOLUME = 0.5
"""Cubic angstrom per atom of a crystal. The densest matter ever computed has more; nanometres read as angstrom less."""
MIN_SPAN = 1e-4
"""Volume of the cell over that of a box with the same edges; below, its vectors lie in one plane but for rounding."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Atoms in space, with or without periodic images.

    Arrays have the precision that shards store, so that what is computed from a structure before writing
    (edges, above all) is what would be computed after reading it back.

    Attributes:
        id: name of the sample, unique in its data set.
        atomic_number: uint8 [atoms], 1 (H) to 118 (Og).
        position: float32 [atoms, 3], Cartesian, angstrom.
        cell: float32 [3, 3], rows are the lattice vectors in angstrom; zeros where there is no lattice.
        pbc: bool [3], periodic along each lattice vector.
        targets: value by target name; a missing name means the label is absent. Vectors and tensors are float arrays
            of the target's shape, targets of every atom arrays of shape [atoms, *shape].
        split: name of the split if the source decides it, else None.
        source: name of the input where it says more than the id, for messages about this sample.
    """

    id: str
    atomic_number: NDArray[np.uint8]
    position: NDArray[np.float32]
    cell: NDArray[np.float32]
    pbc: NDArray[np.bool_]
    targets: dict[str, float | int | NDArray[Any]] = field(default_factory=dict)
    split: str | None = None
    source: str | None = None

    def fault(self, specs: Mapping[str, TargetSpec] | None = None) -> str | None:
        """Why this structure cannot be used, or None if it can.

        Args:
            specs: the targets of the data set, whose shapes the values must have.
        """
        atoms = len(self.atomic_number)
        if atoms == 0:
            return "no atoms"
        if self.position.shape != (atoms, 3):
            return f"{atoms} atoms but positions of shape {self.position.shape}"
        if not np.isfinite(self.position).all():
            return "a position is not a finite number"
        if not np.isfinite(self.cell).all():
            return "a lattice vector is not a finite number"
        if max(np.abs(self.position).max(), np.abs(self.cell).max()) > MAX_COORDINATE:
            return f"a coordinate beyond {MAX_COORDINATE:g} angstrom"
        if self.atomic_number.min() < 1 or self.atomic_number.max() > MAX_ATOMIC_NUMBER:
            return f"atomic number outside 1..{MAX_ATOMIC_NUMBER}"
        if self.pbc.any() and (fault := self._cell_fault()) is not None:
            return fault
        return self._target_fault(specs or {})

    def _target_fault(self, specs: Mapping[str, TargetSpec]) -> str | None:
        for name, value in self.targets.items():
            numbers = np.asarray(value, dtype=np.float64)
            spec = specs.get(name)
            if spec is not None and not spec.is_number:
                expected = spec.value_shape(len(self.atomic_number))
                if numbers.shape != expected:
                    return f"target {name} has shape {list(numbers.shape)} instead of {list(expected)}"
            if numbers.ndim and (absent := int(np.isnan(numbers).sum())):
                return f"target {name} is partly absent: {absent} of its {numbers.size} numbers are NaN"
            # Shards store float32: 1e39 is finite as written, and infinite as stored.
            if not (np.abs(numbers) <= np.finfo(np.float32).max).all():
                return f"target {name} is not a finite number of single precision"
        return None

    def _cell_fault(self) -> str | None:
        """What is absurd about the periodic lattice vectors; those of other directions may be anything."""
        vectors = self.cell[self.pbc].astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1)
        # The root of Gram's determinant is the length, area or volume that one, two or three vectors span.
        volume = float(np.sqrt(max(0.0, np.linalg.det(vectors @ vectors.T))))
        if volume <= MIN_SPAN * float(lengths.prod()):
            return "periodic, but the lattice vectors span no volume"
        per_atom = volume / len(self.atomic_number)
        if self.pbc.all() and per_atom < MIN_VOLUME:
            return f"the cell is so small that an atom has {per_atom:.2g} cubic angstrom; are the lengths in angstrom?"
        return None


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input that gave no usable structure: goes to the quarantine with its reason."""

    source: str
    reason: str
