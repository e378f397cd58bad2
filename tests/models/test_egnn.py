from dataclasses import replace

import pytest
import torch
from batches import collate, orthogonal, random_graph, with_geometry
from textbook_egnn import textbook_encode

from matsci_hpc.config import model as config
from matsci_hpc.models.egnn import EGNN

CUTOFF = 3.0
VARIANTS = {
    "plain": {},
    "still": {"update_positions": False},
    "smooth": {"envelope": True, "radial_basis": config.RadialBasis(count=4), "readout": "mean"},
}


def build(variant="plain", *, positions_read=True):
    torch.manual_seed(1)
    model = config.Egnn(layers=3, width=8, message_width=12, position_width=6, embedding_width=10, **VARIANTS[variant])
    encoder = EGNN(model, CUTOFF, positions_read=positions_read).double()
    with torch.no_grad():
        for layer in encoder.layers:
            if layer.position_net is not None:
                layer.position_net[-1].weight *= 1e3  # so that atoms really move
    return encoder


def build_batch(graphs=3, *, periodic=True):
    return collate([random_graph(s, 4 + s, periodic=periodic) for s in range(graphs)], CUTOFF)


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("periodic", [False, True])
def test_same_numbers_as_the_textbook(variant, periodic):
    encoder, batch = build(variant), build_batch(periodic=periodic)
    ours = encoder(batch)
    features, positions, embedding = textbook_encode(encoder, batch)
    close(ours.features, features, 1e-12)
    close(ours.positions, positions, 1e-12)
    close(ours.embedding, embedding, 1e-12)
    if variant != "still":
        assert (ours.positions - batch.position).abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("determinant", [1, -1])
def test_turning_reflecting_and_moving_space(variant, determinant):
    encoder, batch = build(variant), build_batch()
    matrix, translation = orthogonal(5, determinant), torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    one, other = encoder(batch), encoder(with_geometry(batch, matrix, translation))
    close(other.embedding, one.embedding, 1e-10)
    close(other.features, one.features, 1e-10)
    close(other.positions, one.positions @ matrix.T + translation, 1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_atoms(variant):
    encoder, graph = build(variant), random_graph(2, 6, periodic=True)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    shuffled = replace(graph, atomic_number=graph.atomic_number[order], position=graph.position[order])
    one, other = encoder(collate([graph], CUTOFF)), encoder(collate([shuffled], CUTOFF))
    close(other.embedding, one.embedding, 1e-10)
    close(other.positions, one.positions[order], 1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_choice_of_the_unit_cell(variant):
    # Moving one atom by a lattice vector describes the same crystal.
    encoder, graph = build(variant), random_graph(2, 6, periodic=True)
    position = graph.position.clone()
    position[3] += graph.cell[1]
    one, other = (encoder(collate([g], CUTOFF)) for g in (graph, replace(graph, position=position)))
    close(other.embedding, one.embedding, 1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_does_not_see_the_rest_of_the_batch(variant):
    encoder = build(variant)
    graphs = [random_graph(s, 3 + s, periodic=True) for s in range(3)]
    together = encoder(collate(graphs, CUTOFF)).embedding
    alone = torch.cat([encoder(collate([graph], CUTOFF)).embedding for graph in graphs])
    close(together, alone, 1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("positions_read", [False, True])
def test_every_parameter_gets_a_gradient(variant, positions_read):
    encoder = build(variant, positions_read=positions_read)
    encoding = encoder(build_batch())
    total = encoding.embedding.square().sum()
    if positions_read:
        total = total + encoding.positions.square().sum()
    total.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_smooth_as_an_atom_crosses_the_cutoff():
    encoder = build("smooth")

    def encode(distance):
        graph = random_graph(0, 3)
        position = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [distance, 0, 0]], dtype=torch.float64)
        return encoder(collate([replace(graph, position=position)], CUTOFF))

    inside, outside = encode(CUTOFF - 1e-6), encode(CUTOFF + 1e-6)
    close(inside.embedding, outside.embedding, 1e-6)
    close(inside.positions[:2], outside.positions[:2], 1e-6)


def test_forces_can_be_learned():
    encoder, batch = build("smooth"), build_batch(2)
    position = batch.position.requires_grad_()
    energy = encoder(replace(batch, position=position)).embedding[:, 0].sum()
    (force,) = torch.autograd.grad(-energy, position, create_graph=True)
    close(force.sum(dim=0), torch.zeros(3, dtype=torch.float64), 1e-10)
    force.square().sum().backward()
    assert encoder.layers[0].edge_first.weight.grad.abs().max() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_graphs_and_atoms_without_edges(variant):
    encoder = build(variant)
    assert encoder(collate([], CUTOFF)).embedding.shape == (0, 10)
    lonely = encoder(collate([random_graph(0, 1), random_graph(1, 2, side=50.0)], CUTOFF))
    assert torch.isfinite(lonely.embedding).all()
    assert lonely.embedding.shape == (2, 10)
    lonely.embedding.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_atoms_on_one_point():
    graph = random_graph(0, 3)
    encoder = build("smooth")
    batch = collate([replace(graph, position=torch.zeros(3, 3, dtype=torch.float64))], CUTOFF)
    encoder(batch).embedding.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_autocast(variant):
    encoder, batch = build(variant).float(), build_batch().to("cpu", torch.float32)
    exact = encoder(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(batch)
    assert rounded.positions.dtype == rounded.embedding.dtype == torch.float32
    torch.testing.assert_close(rounded.embedding, exact.embedding, rtol=0.1, atol=0.1)
    rounded.embedding.sum().backward()
