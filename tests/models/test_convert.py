"""A batch as the graph of another library, and DGL as the one who carries out the message passing."""

import itertools
import sys
from dataclasses import replace

import pytest
import torch
from batches import collate, random_graph

from matsci_hpc.config import model as config
from matsci_hpc.errors import MachineError
from matsci_hpc.models.convert import to_dgl, to_pyg
from matsci_hpc.models.dgl_layout import DglLayout, import_dgl
from matsci_hpc.models.egnn import edge_vectors, image_shift
from matsci_hpc.models.layout import layout_of
from matsci_hpc.models.registry import ENCODERS, build_model
from matsci_hpc.models.segment import EdgeLayout

CUTOFF = 3.0
SECTIONS = {
    "egnn": config.Egnn(layers=3, width=6, message_width=8, position_width=5, embedding_width=7, envelope=True),
    "schnet": config.SchNet(name="schnet", layers=2, width=6, filter_width=8, gaussians=5, embedding_width=7),
    "painn": config.PaiNN(name="painn", layers=2, width=6, radial=5, embedding_width=7),
    "megnet": config.MegNet(name="megnet", layers=2, width=5, hidden_width=6, gaussians=5, embedding_width=7),
}
try:
    import_dgl()
    has_dgl = True
except MachineError:
    has_dgl = False
needs_dgl = pytest.mark.skipif(not has_dgl and sys.version_info >= (3, 12), reason="no DGL for this Python")


def build_batch(*, periodic=True):
    return collate([random_graph(s, 3 + s, periodic=periodic, side=3.0) for s in range(3)], CUTOFF)


def vectors(batch):
    layout = EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer)
    return edge_vectors(batch.position, layout, image_shift(batch))


@pytest.mark.parametrize("periodic", [False, True])
def test_pytorch_geometric_sees_the_same_graph(periodic):
    from torch_geometric.nn import global_add_pool

    batch = build_batch(periodic=periodic)
    graph = to_pyg(batch)
    assert graph.num_graphs == batch.graphs
    assert graph.pos.data_ptr() == batch.position.data_ptr()
    sender, receiver = graph.edge_index
    assert torch.equal(sender, batch.sender.long())
    assert torch.equal(receiver, batch.receiver.long())
    along = graph.pos[sender] + graph.edge_shift - graph.pos[receiver]
    torch.testing.assert_close(along, graph.edge_vec)
    torch.testing.assert_close(along.norm(dim=1), graph.edge_weight)
    pooled = global_add_pool(graph.pos, graph.batch, graph.num_graphs)
    bounds = batch.atom_pointer.tolist()
    by_hand = [batch.position[a:b].sum(0) for a, b in itertools.pairwise(bounds)]
    torch.testing.assert_close(pooled, torch.stack(by_hand))


@needs_dgl
@pytest.mark.parametrize("periodic", [False, True])
def test_dgl_sees_the_same_graph(periodic):
    dgl = import_dgl()
    batch = build_batch(periodic=periodic)
    graph = to_dgl(batch)
    assert graph.batch_size == batch.graphs
    assert graph.batch_num_nodes().tolist() == batch.atom_pointer.diff().tolist()
    sender, receiver = graph.edges()
    assert torch.equal(sender, batch.sender)
    assert torch.equal(receiver, batch.receiver)
    torch.testing.assert_close(graph.edata["edge_vec"], vectors(batch)[0])
    first = dgl.unbatch(graph)[1]
    bounds = batch.atom_pointer.tolist()
    assert torch.equal(first.ndata["pos"], batch.position[bounds[1] : bounds[2]])
    assert int(graph.batch_num_edges().sum()) == batch.edges


@needs_dgl
@pytest.mark.parametrize("name", SECTIONS)
def test_dgl_gives_the_same_numbers_and_derivatives(name):
    found = []
    for backend in ("own", "dgl"):
        torch.manual_seed(1)
        section = SECTIONS[name].model_copy(update={"backend": backend})
        encoder = ENCODERS[type(section)](section, CUTOFF).double()
        batch = build_batch()
        batch = replace(batch, position=batch.position.clone().requires_grad_())
        embedding = encoder(batch).embedding
        embedding.square().sum().backward()
        found.append([embedding.detach(), batch.position.grad, *(each.grad for each in encoder.parameters())])
    assert len(found[0]) > 5
    for own, dgl in zip(*found, strict=True):
        torch.testing.assert_close(dgl, own, rtol=1e-10, atol=1e-10)


@needs_dgl
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_operators_of_dgl_have_derivatives_of_any_order(check):
    batch = build_batch()
    layout = layout_of(batch, "dgl")
    assert isinstance(layout, DglLayout)
    generator = torch.Generator().manual_seed(0)
    at_edges, at_atoms, also = (
        torch.randn(rows, 2, generator=generator, dtype=torch.float64, requires_grad=True)
        for rows in (batch.edges, batch.atoms, batch.atoms)
    )
    # Powers make the second derivative depend on the values.
    assert check(lambda x: layout.to_atoms(x**3) ** 2, (at_edges,), fast_mode=True)
    assert check(lambda x: layout.from_senders(x**3) ** 2, (at_atoms,), fast_mode=True)
    assert check(lambda x, y: layout.to_edges(x**3, y) ** 2, (at_atoms, also), fast_mode=True)


@needs_dgl
@pytest.mark.parametrize("name", SECTIONS)
def test_forces_train_alike_through_dgl(name):
    found = []
    for backend in ("own", "dgl"):
        torch.manual_seed(1)
        section = SECTIONS[name].model_copy(update={"backend": backend})
        encoder = ENCODERS[type(section)](section, CUTOFF).double()
        batch = build_batch()
        batch = replace(batch, position=batch.position.clone().requires_grad_())
        energy = encoder(batch).embedding.square().sum()
        (slope,) = torch.autograd.grad(energy, batch.position, create_graph=True)
        slope.square().sum().backward()
        # A bias of the last layer moves no force, in some encoders, and has no gradient.
        found.append([slope.detach(), batch.position.grad, *(p.grad for p in encoder.parameters())])
    assert found[0][1].abs().max() > 1e-6
    for own, dgl in zip(*found, strict=True):
        torch.testing.assert_close(dgl, own, rtol=1e-10, atol=1e-10)


@needs_dgl
def test_dgl_is_what_runs(monkeypatch):
    section = SECTIONS["schnet"].model_copy(update={"backend": "dgl"})
    encoder, calls = ENCODERS[type(section)](section, CUTOFF).double(), []
    ops = import_dgl().ops
    original = ops.copy_e_sum
    monkeypatch.setattr(ops, "copy_e_sum", lambda *args: calls.append(args) or original(*args))
    encoder(build_batch())
    assert len(calls) == section.layers


def test_without_dgl_there_is_a_clear_word(monkeypatch):
    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(MachineError, match=r"pip install 'matsci-hpc\[dgl\]'.*model.backend: own"):
        build_model(SECTIONS["painn"].model_copy(update={"backend": "dgl"}), {}, CUTOFF, {})
