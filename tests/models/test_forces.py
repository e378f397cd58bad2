"""Numbers and vectors of atoms: gradients against finite differences, direct heads against their formulas, symmetry."""

from dataclasses import replace

import pytest
import torch
from ase.build import bulk, molecule
from batches import Graph, collate, orthogonal, random_graph, with_geometry
from torch.nn import functional

from matsci_hpc.config import model as config
from matsci_hpc.errors import UserInputError
from matsci_hpc.models import egnn
from matsci_hpc.models.atom_heads import EdgeVectorHead, NodeVectorHead
from matsci_hpc.models.encoder import Graph as EncoderGraph
from matsci_hpc.models.registry import build_model
from matsci_hpc.models.scaling import Scaling
from matsci_hpc.targets import TargetSpec

CUTOFF = 3.0
SIZES = {
    "egnn": config.Egnn(
        layers=3, width=6, message_width=8, position_width=5, radial_basis={"count": 4}, embedding_width=7
    ),
    "schnet": config.SchNet(name="schnet", layers=2, width=6, filter_width=8, gaussians=5, embedding_width=7),
    "painn": config.PaiNN(name="painn", layers=2, width=6, radial=5, embedding_width=7),
    "megnet": config.MegNet(name="megnet", layers=2, width=5, hidden_width=6, gaussians=5, embedding_width=7),
}
NAMES = list(SIZES)
SPECS = {
    "energy": TargetSpec(kind="regression", unit="eV"),
    "force": TargetSpec(kind="regression", unit="eV/angstrom", shape=(3,), per_atom=True),
    "charge": TargetSpec(kind="regression", unit="e", per_atom=True),
}
SCALING = {"energy": (-7.0, 3.0), "force": (0.0, 0.7), "charge": (0.4, 2.0)}
GRADIENT = {"force": "energy"}


def build(name, *, gradients=GRADIENT, scaling=SCALING, **options):
    torch.manual_seed(1)
    sizes = SIZES[name].model_copy(update={"envelope": True} | options)
    model = build_model(sizes, SPECS, CUTOFF, scaling, gradients).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh, MegNet hardly feels distances.
            parameter.add_((0.4 if name == "megnet" else 0.1) * torch.randn_like(parameter))
    return model


def build_batch(*, periodic=True):
    return collate([random_graph(s, 3 + s, periodic=periodic, side=3.0) for s in range(3)], CUTOFF)


def graph_of(atoms):
    atoms.rattle(0.1, seed=3)
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.all() else None
    return Graph(torch.tensor(atoms.numbers), torch.tensor(atoms.positions), cell)


def forces_of(model, batch):
    return model.physical(model(batch), batch)["force"]


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("structure", ["crystal", "molecule"])
@pytest.mark.parametrize("name", NAMES)
def test_forces_are_the_slope_of_the_energy_in_its_unit(name, structure):
    """The cell is as narrow as the cutoff: most edges lead to images, many of them to one of the same atom."""
    atoms = bulk("NaCl", "rocksalt", a=3.6) if structure == "crystal" else molecule("CH3CH2OH")
    model, batch = build(name), collate([graph_of(atoms), random_graph(1, 3)], CUTOFF)
    assert (batch.sender == batch.receiver).any() == (structure == "crystal")
    assert_slope(model, batch)


def test_an_energy_that_is_learned_per_atom_beside_its_composition_has_the_slope_of_the_whole():
    scaling = SCALING | {"energy": Scaling(-7.0, 30.0, extensive=True, references=True)}
    model, batch = build("egnn", scaling=scaling, readout="mean"), build_batch()
    head = model.head("energy")
    head.references.copy_(torch.linspace(-9.0, 0.0, len(head.references)))
    assert_slope(model, batch)


def assert_slope(model, batch):
    """Forces against central differences of the energies."""
    forces = forces_of(model, batch)

    def energy(position):
        with torch.no_grad():
            return model.physical(model(replace(batch, position=position)), batch)["energy"].sum()

    expected = torch.empty_like(forces)
    for atom in range(batch.atoms):
        for axis in range(3):
            step = torch.zeros_like(batch.position)
            step[atom, axis] = 1e-4
            expected[atom, axis] = -(energy(batch.position + step) - energy(batch.position - step)) / 2e-4
    assert expected.abs().max() > 1e-2
    close(forces, expected, 1e-6)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_forces_sum_to_zero_and_turn_with_space(name, periodic):
    model, batch = build(name), build_batch(periodic=periodic)
    forces = forces_of(model, batch)
    assert forces.abs().max() > 1e-2
    for first, last in zip(batch.atom_pointer[:-1].tolist(), batch.atom_pointer[1:].tolist(), strict=True):
        close(forces[first:last].sum(dim=0), torch.zeros(3, dtype=torch.float64))
    for determinant in (1, -1):
        matrix = orthogonal(5, determinant)
        moved = with_geometry(batch, matrix, torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64))
        close(forces_of(model, moved), forces @ matrix.T)


@pytest.mark.parametrize("name", NAMES)
def test_direct_vectors_turn_with_space_and_numbers_stay(name):
    model, batch = build(name, gradients=None), build_batch()
    made = model.physical(model(batch))
    assert made["force"].abs().max() > 1e-2
    assert made["charge"].shape == (batch.atoms,)
    for determinant in (1, -1):
        matrix = orthogonal(5, determinant)
        moved = with_geometry(batch, matrix, torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64))
        again = model.physical(model(moved))
        close(again["force"], made["force"] @ matrix.T)
        close(again["charge"], made["charge"])


@pytest.mark.parametrize("gradients", [GRADIENT, None], ids=["gradient", "direct"])
@pytest.mark.parametrize("name", NAMES)
def test_company_in_the_batch_changes_nothing(name, gradients):
    model, graph = build(name, gradients=gradients), random_graph(0, 5, periodic=True)
    alone = model(collate([graph], CUTOFF))
    together = model(collate([random_graph(7, 2), graph, random_graph(8, 1)], CUTOFF))
    for target in ("force", "charge"):
        close(together[target][2:7], alone[target])


@pytest.mark.parametrize("name", NAMES)
def test_forces_of_an_atom_that_crosses_the_cutoff_do_not_jump(name):
    model = build(name)

    def forces(distance):
        position = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [distance, 0, 0]], dtype=torch.float64)
        return forces_of(model, collate([replace(random_graph(0, 3), position=position)], CUTOFF))

    close(forces(CUTOFF - 1e-6), forces(CUTOFF + 1e-6), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_loss_of_forces_tells_parameters(name):
    """Derivatives of derivatives against finite differences of the loss, along random directions of every parameter."""
    model, batch = build(name), build_batch()
    wanted = torch.randn(batch.atoms, 3, dtype=torch.float64)

    def loss():
        return (model(batch)["force"] - wanted).square().mean()

    loss().backward()
    reached = {each: p.grad.clone() for each, p in model.named_parameters() if p.grad is not None}
    unreached = [each for each in dict(model.named_parameters()) if each not in reached]
    assert all(each.startswith("heads.target:charge") or each.endswith("bias") for each in unreached)
    for each, gradient in reached.items():
        parameter = model.get_parameter(each)
        direction = torch.randn_like(parameter) / parameter.numel() ** 0.5
        with torch.no_grad():
            values = []
            for step in (1e-5, -2e-5):
                parameter.add_(direction, alpha=step)
                values.append(loss().item())
            parameter.add_(direction, alpha=1e-5)
        difference = (values[0] - values[1]) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-4, abs=1e-7), each


def test_edges_in_parts_have_the_same_forces(monkeypatch):
    model, batch = build("egnn"), build_batch()

    def numbers():
        model.zero_grad()
        force = model(batch)["force"]
        force.square().sum().backward()
        return [force.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    whole = numbers()
    monkeypatch.setitem(egnn.EDGE_TENSOR_BYTES, "cpu", 10 * 8 * 8)  # ten edges
    close(numbers(), whole)


@pytest.mark.parametrize("gradients", [GRADIENT, None], ids=["gradient", "direct"])
def test_dgl_gives_the_same_forces_and_learns_the_same(gradients):
    pytest.importorskip("dgl", reason="DGL has no release for this Python")
    batch = build_batch()

    def numbers(backend):
        model = build("egnn", gradients=gradients, backend=backend)
        force = model(batch)["force"]
        force.square().sum().backward()
        return [force.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    close(numbers("dgl"), numbers("own"))


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_has_forces_and_no_graph(name):
    model, batch = build(name), build_batch()
    learning = model(batch)
    with torch.no_grad():
        evaluated = model(batch)
    assert not any(each.requires_grad for each in evaluated.values())
    assert not batch.position.requires_grad
    for target, output in learning.items():
        assert output.requires_grad
        close(evaluated[target], output)


def test_hessians_follow_positions_that_require_gradients():
    model, batch = build("egnn"), build_batch()
    position = batch.position.clone().requires_grad_()
    force = forces_of(model, replace(batch, position=position))
    (row,) = torch.autograd.grad(force[0, 0], position, retain_graph=True)
    (column,) = torch.autograd.grad(force[2, 1], position)
    close(row[2, 1], column[0, 0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gradients", [GRADIENT, None], ids=["gradient", "direct"])
def test_bf16_keeps_forces_in_float32(name, gradients):
    model, batch = build(name, gradients=gradients).float(), build_batch().to("cpu", torch.float32)
    exact = model(batch)["force"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(batch)["force"]
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < 0.1 * exact.norm()
    rough.square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(each.isfinite().all() and each.dtype == torch.float32 for each in gradients)


def test_vectors_along_edges_as_the_formula_says():
    model, batch = build("schnet", gradients=None), build_batch()
    head, encoding = model.head("force"), model.encode(batch)
    assert isinstance(head, EdgeVectorHead)
    graph = EncoderGraph.of(batch, CUTOFF, envelope=True, backend="own")
    expected = torch.zeros(batch.atoms, 3, dtype=torch.float64)
    for e in range(batch.edges):
        i, j, d = int(batch.receiver[e]), int(batch.sender[e]), graph.vector[e].norm()
        gaussians = torch.exp(-0.5 * (d / (CUTOFF / 15) - torch.arange(16)).square())
        joined = torch.cat((encoding.features[i], encoding.features[j], gaussians))
        phi = head.rest(functional.silu(head.first.weight @ joined + head.first.bias)[None])[0, 0]
        fade = 0.5 * (torch.cos(torch.pi * d / CUTOFF) + 1)
        expected[i] += fade * phi * graph.vector[e] / d
    close(model(batch)["force"], expected)


def test_vectors_of_painn_are_weighted_by_features():
    model, batch = build("painn", gradients=None), build_batch()
    head, encoding = model.head("force"), model.encode(batch)
    assert isinstance(head, NodeVectorHead)
    weights = head.net(encoding.features)
    expected = torch.stack([encoding.vectors[a] @ weights[a] for a in range(batch.atoms)])
    close(model(batch)["force"], expected)


def test_no_graphs_and_lonely_atoms():
    for gradients in (GRADIENT, None):
        model = build("egnn", gradients=gradients)
        assert model(collate([], CUTOFF))["force"].shape == (0, 3)
        lonely = model(collate([random_graph(0, 1), random_graph(1, 2, side=50.0)], CUTOFF))["force"]
        close(lonely, torch.zeros(3, 3, dtype=torch.float64))


def test_scaling_is_kept_with_the_parameters():
    state = build("egnn").state_dict()
    assert float(state["heads.target:force.std"]) == pytest.approx(0.7)
    with pytest.raises(UserInputError, match=r"target 'force' cannot be scaled by mean 0\.0 and deviation nan"):
        build_model(SIZES["egnn"], SPECS, CUTOFF, {"force": (0.0, float("nan"))})


class Blind(torch.nn.Module):
    """Features of the atoms that do not feel where these are."""

    def __init__(self):
        super().__init__()
        self.elements = torch.nn.Embedding(119, 7)

    def forward(self, batch):
        return self.elements(batch.atomic_number)


def own(**options):
    return config.OwnModule(target="test_forces.Blind", embedding_width=7, **options)


def test_a_module_of_the_users_own_gets_direct_heads_on_its_atoms():
    sizes = own(gives="atoms")
    torch.manual_seed(0)
    model, batch = build_model(sizes, SPECS, CUTOFF, SCALING).double(), build_batch()
    made, matrix = model(batch), orthogonal(5, 1)
    turned = model(with_geometry(batch, matrix, torch.zeros(3, dtype=torch.float64)))
    close(turned["force"], made["force"] @ matrix.T)
    assert made["charge"].shape == (batch.atoms,)


def test_a_module_that_tells_nothing_of_atoms_or_positions_is_refused():
    with pytest.raises(UserInputError, match=r"targets\.charge: every atom has a value, and model\.target gives"):
        build_model(own(gives="graphs"), SPECS, CUTOFF, SCALING)
    model = build_model(own(gives="atoms"), SPECS, CUTOFF, SCALING, GRADIENT).double()
    with pytest.raises(UserInputError, match="energy does not depend on the positions of the atoms"):
        model(build_batch())
