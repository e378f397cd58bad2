"""SchNet, PaiNN and MegNet: the numbers of their papers, and the laws that any encoder of atoms obeys."""

from dataclasses import replace

import pytest
import textbook_models
import torch
from batches import Graph, collate, orthogonal, random_graph, with_geometry

from matsci_hpc.config import model as config
from matsci_hpc.models.painn import PaiNN
from matsci_hpc.models.registry import ENCODERS

CUTOFF = 3.0
SIZES = {
    "schnet": config.SchNet(name="schnet", layers=2, width=6, filter_width=8, gaussians=5, embedding_width=7),
    "painn": config.PaiNN(name="painn", layers=2, width=6, radial=5, embedding_width=7),
    "megnet": config.MegNet(name="megnet", layers=2, width=5, hidden_width=6, gaussians=5, embedding_width=7),
}
NAMES = list(SIZES)


def build(name, **options):
    torch.manual_seed(1)
    encoder = ENCODERS[type(SIZES[name])](SIZES[name].model_copy(update=options), CUTOFF).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and the state of MegNet begin as zeros
    return encoder


def build_batch(graphs=3, *, periodic=True):
    return collate([random_graph(s, 3 + s, periodic=periodic, side=3.0) for s in range(graphs)], CUTOFF)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("options", [{"envelope": True}, {"envelope": False, "readout": "mean"}], ids=["faded", "bare"])
@pytest.mark.parametrize("name", NAMES)
def test_same_numbers_as_the_paper(name, options, periodic):
    encoder, batch = build(name, **options), build_batch(2, periodic=periodic)
    expected = getattr(textbook_models, name)(encoder, batch)
    close(encoder(batch).embedding, expected[0] if name == "painn" else expected)


def painn_vectors():
    torch.manual_seed(1)
    return PaiNN(SIZES["painn"], CUTOFF, vectors_read=True).double()


def test_vectors_of_painn_are_those_of_the_paper_and_turn_with_space():
    encoder, batch = painn_vectors(), build_batch(2)
    _, vectors = encoder.atoms(batch)
    close(vectors, textbook_models.painn(encoder, batch)[1])
    assert vectors.abs().max() > 1e-3
    matrix = orthogonal(5, -1)
    _, turned = encoder.atoms(with_geometry(batch, matrix, torch.ones(3, dtype=torch.float64)))
    close(turned, torch.einsum("kl,alf->akf", matrix, vectors))


@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("name", NAMES)
def test_turning_reflecting_and_moving_space(name, determinant):
    encoder, batch = build(name), build_batch()
    moved = with_geometry(batch, orthogonal(5, determinant), torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64))
    close(encoder(moved).embedding, encoder(batch).embedding)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_atoms_and_company_in_the_batch(name):
    encoder, graph = build(name), random_graph(0, 5, periodic=True)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = replace(graph, atomic_number=graph.atomic_number[order], position=graph.position[order])
    alone = encoder(collate([graph], CUTOFF)).embedding
    close(encoder(collate([shuffled], CUTOFF)).embedding, alone)
    close(encoder(collate([random_graph(7, 2), graph, shuffled], CUTOFF)).embedding[1:], alone.expand(2, -1))


@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_another_choice_of_images_and_a_supercell(name, readout):
    encoder, graph = build(name, readout=readout), random_graph(0, 3, periodic=True)
    first = encoder(collate([graph], CUTOFF)).embedding
    shift = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, 0]], dtype=torch.float64) @ graph.cell
    close(encoder(collate([replace(graph, position=graph.position + shift)], CUTOFF)).embedding, first)
    twice = Graph(
        graph.atomic_number.repeat(2),
        torch.cat((graph.position, graph.position + graph.cell[0])),
        graph.cell * torch.tensor([[2.0], [1.0], [1.0]], dtype=torch.float64),
    )
    factor = 2 if readout == "sum" else 1
    close(encoder(collate([twice], CUTOFF)).embedding, factor * first)


@pytest.mark.parametrize("name", NAMES)
def test_forces_are_the_slope_of_the_energy_and_can_be_learned(name):
    encoder, batch = build(name, envelope=True), build_batch(2)

    def energy(position):
        return encoder(replace(batch, position=position)).embedding[:, 0].sum()

    position = batch.position.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(position), position, create_graph=True)
    close(slope.sum(dim=0), torch.zeros(3, dtype=torch.float64))
    with torch.no_grad():
        for atom, axis in [(0, 0), (2, 1), (5, 2)]:
            step = torch.zeros_like(position)
            step[atom, axis] = 1e-5
            difference = (energy(position + step) - energy(position - step)) / 2e-5
            close(slope[atom, axis].detach(), difference, 1e-6)
    slope.square().sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert all(torch.isfinite(each).all() for each in gradients)
    assert sum(float(each.abs().sum()) for each in gradients) > 0


@pytest.mark.parametrize("name", NAMES)
def test_smooth_as_an_atom_crosses_the_cutoff(name):
    encoder = build(name, envelope=True)

    def encode(distance):
        position = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [distance, 0, 0]], dtype=torch.float64)
        return encoder(collate([replace(random_graph(0, 3), position=position)], CUTOFF)).embedding

    close(encode(CUTOFF - 1e-6), encode(CUTOFF + 1e-6), 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_graphs_and_atoms_without_edges(name):
    encoder = build(name)
    assert encoder(collate([], CUTOFF)).embedding.shape == (0, 7)
    lonely = encoder(collate([random_graph(0, 1), random_graph(1, 2, side=50.0)], CUTOFF)).embedding
    assert lonely.shape == (2, 7)
    lonely.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_atoms_on_one_point(name):
    encoder, graph = build(name), random_graph(0, 3)
    batch = collate([replace(graph, position=torch.zeros(3, 3, dtype=torch.float64))], CUTOFF)
    encoder(batch).embedding.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    encoder = build(name)
    encoder(build_batch()).embedding.square().sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name):
    encoder, batch = build(name).float(), build_batch().to("cpu", torch.float32)
    exact = encoder(batch).embedding
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(batch).embedding
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1 * float(exact.detach().abs().max()))
    rounded.sum().backward()
