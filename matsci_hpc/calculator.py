"""A trained model as a calculator of ASE: energies, forces and stress of molecules and crystals.

    from ase.build import bulk
    from matsci_hpc import load_model
    from matsci_hpc.calculator import Calculator

    atoms = bulk("C")
    atoms.calc = Calculator(load_model("encoder.safetensors"), energy="energy")

| symbol | here |
|---|---|
| E | energy of all atoms of the cell, eV |
| F_i = -dE/dx_i | `forces`, eV/angstrom, x_i the position of atom i |
| sigma = dE/d(strain) / V | `stress`, eV/angstrom^3, where the cell is periodic in three directions; V its volume |

Both derivatives are exact ones of E by automatic differentiation, so that forces conserve energy wherever E is smooth.
The strain moves atoms and lattice vectors alike: x -> x (1 + strain), symmetric (Knuth et al. 2015,
doi:10.1016/j.cpc.2015.01.003, section 2).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from torch import Tensor

from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.graphs import batch_of, graph_of
from matsci_hpc.inference.trained import TrainedModel
from matsci_hpc.loading.batch import Batch
from matsci_hpc.structure import Structure
from matsci_hpc.targets import PER_ATOM, TargetSpec

UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": units.Hartree,
    "Hartree": units.Hartree,
    "Ry": units.Rydberg,
    "kJ/mol": units.kJ / units.mol,
    "kcal/mol": units.kcal / units.mol,
}
"""Units of energy, in eV; each may be followed by `/atom`."""


class Calculator(AseCalculator):
    """Energy by one target of a model, forces and stress by its derivatives.

    Neighbours are found anew at every step by the rule of the model's training. Positions have double precision; the
    model computes in its own (`load_model(..., precision="float64")` for derivatives to more than five digits).

    Args:
        model: with a head for an energy.
        energy: name of the target that is the energy of the structure, or that of an atom where its unit says so; by
            default the one that is called energy.
        forces: name of a target of every atom that is the force, taken instead of the derivative; such forces do not
            conserve energy.

    Raises:
        UserInputError: this is no loaded model, it has no such target, or its unit is none of an energy.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - so it is called in ASE

    def __init__(self, model: TrainedModel, energy: str | None = None, forces: str | None = None) -> None:
        if not isinstance(model, TrainedModel):
            raise UserInputError(f"Calculator({model!r}): takes a loaded model: Calculator(load_model({model!r}))")
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.energy_target = _energy_target(model.targets, energy)
        self.forces_target = _forces_target(model.targets, forces)
        self._unit_ev, self._per_atom = energy_unit(self.energy_target, model.targets[self.energy_target])
        if getattr(model.about.model, "envelope", None) is False:
            warnings.warn(
                "this model was trained with model.envelope: false, so its energy jumps when an atom crosses the "
                "cutoff: dynamics will not conserve energy; train with model.envelope: true",
                stacklevel=2,
            )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """As ASE asks for it; everything that one backward pass gives is computed at once.

        Raises:
            UserInputError: the structure cannot be used, such as two atoms at one place.
            PropertyNotImplementedError: the stress of a structure that is not periodic in three directions.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self._compute(self.atoms, properties)

    def _compute(self, atoms: Any, properties: Sequence[str]) -> None:  # Any: ASE is typed in parts
        if "stress" in properties and not atoms.pbc.all():
            raise PropertyNotImplementedError("stress needs a structure that is periodic in three directions")
        batch = self.model.precision.cast(self._batch(atoms))
        differentiated = any(each in properties for each in ("forces", "stress"))
        strain = torch.zeros(3, 3, dtype=batch.position.dtype, device=batch.position.device)
        if differentiated:
            batch, strain = strained(batch, strain)
        with torch.set_grad_enabled(differentiated), self.model.precision.autocast():
            outputs = self.model.module(batch)
        energy = self._energy(outputs, batch)
        value_ev = float(energy.detach())
        self.results = {"energy": value_ev, "free_energy": value_ev}
        if differentiated:
            at_position, at_strain = torch.autograd.grad(energy, (batch.position, strain))
            self.results["forces"] = -_array(at_position)
            if atoms.pbc.all():
                stress = _array(at_strain)
                self.results["stress"] = voigt((stress + stress.T) / 2 / atoms.get_volume())
        if self.forces_target is not None:
            self.results["forces"] = _array(self.model.module.physical(outputs, batch)[self.forces_target])

    def _batch(self, atoms: Any) -> Batch:
        """The atoms, moved back into the cell: edges point no farther than images of 8 bits reach."""
        periodic = atoms.cell.array[np.asarray(atoms.pbc, dtype=bool)]
        if np.linalg.matrix_rank(periodic) < len(periodic):
            raise UserInputError(
                f"structure {atoms.symbols}: is periodic in {len(periodic)} directions, and its cell spans fewer; set "
                "atoms.cell, or atoms.pbc = False"
            )
        structure = Structure(
            id=str(atoms.symbols),
            atomic_number=np.asarray(atoms.numbers, dtype=np.uint8),
            position=np.ascontiguousarray(atoms.get_positions(wrap=bool(atoms.pbc.any()))),
            cell=np.ascontiguousarray(atoms.cell.array),
            pbc=np.asarray(atoms.pbc, dtype=bool),
        )
        return batch_of([graph_of(structure, self.model.cutoff)])

    def _energy(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Of the one structure of a batch, eV."""
        wide = self.model.precision.widen(outputs[self.energy_target])
        physical = self.model.module.physical({self.energy_target: wide}, batch)[self.energy_target]
        total = physical.sum() * self._unit_ev
        return total * batch.atoms if self._per_atom else total


def strained(batch: Batch, strain: Tensor) -> tuple[Batch, Tensor]:
    """A batch of one structure whose positions follow from a strain, and the strain, [3, 3], to differentiate by."""
    strain.requires_grad_()
    turn = torch.eye(3, dtype=strain.dtype, device=strain.device) + (strain + strain.t()) / 2
    batch.position = batch.position.detach().requires_grad_()
    moved = Batch(
        **{name: getattr(batch, name) for name in Batch.__dataclass_fields__}
        | {"position": batch.position @ turn, "cell": batch.cell @ turn}
    )
    return moved, strain


def voigt(stress: Any) -> Any:
    """The six components of a symmetric tensor, [3, 3], in the order of Voigt: xx, yy, zz, yz, xz, xy."""
    return stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def energy_unit(name: str, spec: TargetSpec) -> tuple[float, bool]:
    """The unit of an energy in eV, and whether it is that of an atom.

    Raises:
        UserInputError: it is none of an energy.
    """
    unit = spec.unit or ""
    whole = PER_ATOM.sub("", unit)
    if whole not in UNITS:
        raise UserInputError(
            f"target {name} has the unit {spec.unit or 'none'}; an energy has one of {', '.join(UNITS)}, maybe /atom"
        )
    return UNITS[whole], whole != unit


def _energy_target(targets: dict[str, TargetSpec], wanted: str | None) -> str:
    numbers = [name for name, spec in targets.items() if spec.kind == "regression" and spec.is_number]
    named = [name for name in numbers if "energy" in name.lower()]
    if wanted is None and "energy" in numbers:
        return "energy"
    if wanted is None and len(named) == 1:
        return named[0]
    if wanted is not None and wanted in numbers:
        return wanted
    what = "which target is the energy is not clear" if wanted is None else f"no target {wanted!r} is a number"
    raise UserInputError(f"{what}; name it: Calculator(model, energy=...); there are {', '.join(numbers) or 'none'}")


def _forces_target(targets: dict[str, TargetSpec], wanted: str | None) -> str | None:
    vectors = [name for name, spec in targets.items() if spec.per_atom and spec.shape == (3,)]
    if wanted is not None and wanted not in vectors:
        known = ", ".join(vectors) or "none"
        raise UserInputError(f"no target {wanted!r} is a vector of every atom; there are {known}")
    return wanted


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy().astype(np.float64)
