"""The calculator of ASE against finite differences, symmetries and the conservation of energy."""

import ase.build
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from matsci_hpc.calculator import Calculator
from matsci_hpc.config.model import Egnn, MegNet, PaiNN, SchNet
from matsci_hpc.errors import UserInputError
from matsci_hpc.inference.about import About, Origin
from matsci_hpc.inference.trained import TrainedModel
from matsci_hpc.models.registry import build_model
from matsci_hpc.neighbors import RULE
from matsci_hpc.shards.statistics import TargetStatistics
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.learned import Learned
from matsci_hpc.training.precision import Precision
from matsci_hpc.training.tasks import Task

SMALL = {"layers": 2, "width": 8, "embedding_width": 8, "envelope": True}
ENCODERS = {
    "egnn": Egnn(**SMALL, message_width=8, position_width=8),
    "schnet": SchNet(name="schnet", **SMALL, filter_width=8, gaussians=8),
    "painn": PaiNN(name="painn", **SMALL, radial=8),
    "megnet": MegNet(name="megnet", **SMALL, hidden_width=8, gaussians=8),
}
CUTOFF = 3.5


def model_of(section=ENCODERS["egnn"], unit="eV", *, precision="float64", scale=1.0, **targets):
    """A model whose energy follows positions as strongly as a trained one's: its first weights are made larger."""
    specs = {"energy": TargetSpec(kind="regression", unit=unit), **targets}
    torch.manual_seed(5)
    module = build_model(section, specs, CUTOFF, {"energy": (-3.0, scale)})
    with torch.no_grad():
        for each in module.parameters():
            each.mul_(2.0 if each.ndim > 1 and section.name != "painn" else 1.0)
    chosen = Precision(precision)
    learned = Learned(
        targets={name: Task(name, spec, 1.0, "huber", TargetStatistics()) for name, spec in specs.items()},
        cutoff_angstrom=CUTOFF,
        neighbor_rule=RULE,
    )
    origin = Origin(run="none", step=0, weights="model", checksum="", matsci_hpc="0")
    about = About(model=section, learned=learned, precision=precision, origin=origin)
    return TrainedModel(module.to(chosen.dtype).eval().requires_grad_(False), about, chosen)


def diamond(repeat=1, rattled=0.1):
    """Carbon, and silicon in its place here and there, off its sites; in a skewed cell."""
    atoms = ase.build.bulk("C") * (repeat, repeat, repeat)
    atoms.numbers[::3] = 14
    atoms.rattle(rattled, seed=3)
    return atoms


def water():
    atoms = ase.build.molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms


def slab():
    atoms = ase.build.fcc111("Al", (1, 1, 2), vacuum=4.0)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("structure", [diamond, water, slab])
def test_forces_are_the_slope_of_the_energy(name, structure):
    atoms = structure()
    atoms.calc = Calculator(model_of(ENCODERS[name]))
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 1e-3
    assert np.abs(forces.sum(axis=0)).max() < 1e-10
    step = 1e-4
    for atom in range(len(atoms)):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                moved.calc = atoms.calc
                energies.append(moved.get_potential_energy())
            slope = (energies[0] - energies[1]) / (2 * step)
            assert forces[atom, axis] == pytest.approx(-slope, abs=1e-6 * max(1, np.abs(forces).max()))


@pytest.mark.parametrize("name", ENCODERS)
def test_stress_is_the_slope_of_the_energy(name):
    atoms = diamond()
    atoms.calc = Calculator(model_of(ENCODERS[name]))
    stress = atoms.get_stress(voigt=False)
    assert np.abs(stress).max() > 1e-5
    step = 1e-5
    for one, other in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]:
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[one, other] += sign * step / 2
            strain[other, one] += sign * step / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert stress[one, other] == pytest.approx(slope, abs=1e-6 * max(1, np.abs(stress).max()))
    with pytest.raises(PropertyNotImplementedError, match="periodic in three directions"):
        Calculator(model_of()).calculate(slab(), ["stress"])


@pytest.mark.parametrize("name", ENCODERS)
def test_everything_turns_with_the_structure(name):
    atoms = diamond()
    atoms.calc = Calculator(model_of(ENCODERS[name]))
    turned = atoms.copy()
    turned.rotate(73, (1, 2, 3), rotate_cell=True)
    turned.calc = atoms.calc
    turn = np.linalg.solve(atoms.cell.array, turned.cell.array)
    assert turned.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(turned.get_forces(), atoms.get_forces() @ turn, atol=1e-9)
    np.testing.assert_allclose(turned.get_stress(voigt=False), turn.T @ atoms.get_stress(voigt=False) @ turn, atol=1e-9)


def test_an_atom_and_its_image_are_the_same_atom():
    atoms = diamond()
    atoms.calc = Calculator(model_of())
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.positions[1] += 200 * atoms.cell[0] - 300 * atoms.cell[2]
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-7)


def test_a_supercell_has_the_energy_of_its_cells():
    """Energies per atom from a mean over atoms are those of the cell; so a supercell of 8 cells has 8 times the energy.

    With a sum over atoms the embedding is 8 times as large, and the energy follows it only through a linear head.
    """
    mean = model_of(ENCODERS["egnn"].model_copy(update={"readout": "mean"}), unit="eV/atom")
    linear = model_of(ENCODERS["egnn"].model_copy(update={"readout": "sum", "head_layers": 1}))
    cell = diamond()
    cells = cell * (2, 2, 2)
    np.testing.assert_allclose(linear.embed(cells), 8 * linear.embed(cell), atol=1e-4)
    (head,) = linear.module.heads.values()
    at_zero = float(head.physical(head(torch.zeros(1, 8, dtype=torch.float64))))
    for model, start in ((mean, 0.0), (linear, at_zero)):
        cell.calc = cells.calc = Calculator(model)
        one, eight = cell.get_potential_energy() - start, cells.get_potential_energy() - start
        assert abs(one) > 0.1
        assert eight == pytest.approx(8 * one, abs=1e-8)
        np.testing.assert_allclose(cells.get_forces(), np.tile(cell.get_forces(), (8, 1)), atol=1e-8)
        np.testing.assert_allclose(cells.get_stress(), cell.get_stress(), atol=1e-8)


def drift(model, steps, step_fs):
    """Largest departure of the total energy, and of the potential energy, from their beginnings, eV."""
    atoms = diamond(repeat=2, rattled=0.02)
    generator = np.random.default_rng(1)
    atoms.set_momenta(generator.normal(size=(len(atoms), 3)) * np.sqrt(600 * units.kB * atoms.get_masses())[:, None])
    Stationary(atoms)
    atoms.calc = Calculator(model)
    dynamics = VelocityVerlet(atoms, step_fs * units.fs)
    totals, potentials, pairs = [], [], set()
    for _ in range(steps):
        totals.append(atoms.get_total_energy())
        potentials.append(atoms.get_potential_energy())
        pairs.add(len(neighbor_list("i", atoms, CUTOFF)))
        dynamics.run(1)
    assert len(pairs) > 3  # atoms have come within the cutoff and left it
    return np.ptp(totals), np.ptp(potentials)


def test_dynamics_conserve_the_energy():
    model = model_of(scale=30.0)
    total, potential = drift(model, steps=60, step_fs=0.5)
    assert potential > 0.05
    assert total < 0.01 * potential
    # The error of velocity Verlet is of second order: a quarter at half the step.
    finer, _ = drift(model, steps=120, step_fs=0.25)
    assert finer < 0.4 * total


def test_single_precision_gives_the_same_to_its_digits():
    double, single = diamond(2), diamond(2)
    double.calc, single.calc = Calculator(model_of()), Calculator(model_of(precision="float32"))
    assert single.get_potential_energy() == pytest.approx(double.get_potential_energy(), rel=1e-5)
    np.testing.assert_allclose(single.get_forces(), double.get_forces(), atol=1e-4)


@pytest.mark.parametrize(
    ("unit", "factor"), [("eV", 1), ("meV", 1e-3), ("eV/atom", 2), ("Ha", 27.211386), ("kcal/mol/atom", 2 * 0.0433641)]
)
def test_energies_are_in_electronvolt_whatever_the_unit_of_the_target(unit, factor):
    atoms = diamond()
    model = model_of(unit=unit)
    (predicted,) = model.predict(atoms)
    atoms.calc = Calculator(model)
    assert atoms.get_potential_energy() == pytest.approx(factor * predicted["energy"], rel=1e-5)


def test_which_target_is_the_energy_must_be_clear():
    gap = {"gap": TargetSpec(kind="regression", unit="eV"), "metal": TargetSpec(kind="binary")}
    assert Calculator(model_of(**gap)).energy_target == "energy"
    assert Calculator(model_of(**gap), energy="gap").energy_target == "gap"
    for wanted, said in (("metal", "no target 'metal' is a number"), ("enrgy", "there are energy, gap")):
        with pytest.raises(UserInputError, match=said):
            Calculator(model_of(**gap), energy=wanted)
    with pytest.raises(UserInputError, match="no target 'f' is a vector of every atom"):
        Calculator(model_of(), forces="f")
    with pytest.raises(UserInputError, match="has the unit GPa; an energy has one of eV"):
        Calculator(model_of(unit="GPa"))


def test_atoms_at_one_place_are_refused_and_jumps_are_warned_of():
    atoms = ase.Atoms("C2", positions=[[0, 0, 0], [0, 0, 1e-4]])
    atoms.calc = Calculator(model_of())
    with pytest.raises(UserInputError, match="angstrom apart"):
        atoms.get_potential_energy()
    with pytest.warns(UserWarning, match=r"model\.envelope: false"):
        Calculator(model_of(ENCODERS["egnn"].model_copy(update={"envelope": False})))


def test_what_is_no_model_or_has_no_cell_is_refused():
    with pytest.raises(UserInputError, match=r"Calculator\(load_model\('runs/mp'\)\)"):
        Calculator("runs/mp")
    for pbc, spans in ((True, 3), ((True, False, False), 1)):
        atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], pbc=pbc)
        atoms.calc = Calculator(model_of())
        with pytest.raises(UserInputError, match=f"H2: is periodic in {spans} directions, and its cell spans fewer"):
            atoms.get_potential_energy()
        atoms.pbc = False
        assert np.isfinite(atoms.get_potential_energy())
