"""Values of a target as a head learns them, against numpy."""

import numpy as np
import pytest
import torch
from batches import collate, random_graph

from matsci_hpc.config import model as config
from matsci_hpc.models.registry import build_model
from matsci_hpc.models.scaling import Scaling
from matsci_hpc.targets import TargetSpec

SIZES = config.Egnn(layers=1, width=4, message_width=4, position_width=4, embedding_width=6)
GRAPHS = [random_graph(seed, atoms) for seed, atoms in enumerate((1, 5, 3, 9))]
REFERENCES = torch.linspace(-9.0, 3.0, 119)


def build(scaling: Scaling, seed: int = 0):
    torch.manual_seed(seed)
    return build_model(SIZES, {"e": TargetSpec(kind="regression", unit="eV")}, 3.0, {"e": scaling}).double()


@pytest.mark.parametrize("extensive", [False, True])
@pytest.mark.parametrize("references", [False, True])
def test_standard_and_physical_values(extensive, references):
    model, batch = build(Scaling(0.5, 2.0, extensive, references)), collate(GRAPHS, 3.0)
    values = torch.tensor([-3.0, 10.0, 0.25, -80.0], dtype=torch.float64)
    expected = []
    for graph, value in zip(GRAPHS, values.numpy(), strict=True):
        numbers = graph.atomic_number.numpy()
        y = value / len(numbers) if extensive else value
        y -= REFERENCES.numpy()[numbers].mean() if references else 0.0
        expected.append((y - 0.5) / 2.0)
    if references:
        model.head("e").references.copy_(REFERENCES)
    standard = model.standardise("e", values, batch)
    np.testing.assert_allclose(standard.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(model.physical({"e": standard}, batch)["e"], values, rtol=1e-12, atol=1e-12)
    again = build(Scaling(0.0, 1.0, extensive, references), seed=3)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.physical(again(batch), batch)["e"], model.physical(model(batch), batch)["e"])


@pytest.mark.parametrize("scaling", [Scaling(extensive=True), Scaling(references=True)])
def test_what_is_scaled_by_atoms_asks_for_them(scaling):
    model, batch = build(scaling), collate(GRAPHS, 3.0)
    with pytest.raises(ValueError, match="'e' is scaled by the atoms of each graph"):
        model.physical(model(batch))
    with pytest.raises(ValueError, match="its batch is needed"):
        model.standardise("e", torch.ones(4))


def test_a_target_without_them_has_the_buffers_it_always_had():
    assert {name for name, _ in build(Scaling(1.0, 2.0)).head("e").named_buffers()} == {"mean", "std"}


def test_forces_follow_through_the_scaling():
    """An energy is the output times its deviation and the atoms, plus what no position changes."""
    model, batch = build(Scaling(0.5, 2.0, extensive=True, references=True)), collate(GRAPHS, 3.0)
    model.head("e").references.copy_(REFERENCES)
    batch.position.requires_grad_()
    output = model(batch)["e"]
    (slope,) = torch.autograd.grad(output.sum(), batch.position, retain_graph=True)
    (of_energy,) = torch.autograd.grad(model.physical({"e": output}, batch)["e"].sum(), batch.position)
    atoms = batch.atom_pointer.diff()[batch.atom_graph.long()]
    torch.testing.assert_close(of_energy, 2.0 * atoms[:, None] * slope)
