"""SchNet beside that of PyTorch Geometric, an independent code, with the same parameters."""

import math

import pytest
import torch
from batches import collate, random_graph
from torch_geometric.nn.models import schnet as pyg

from matsci_hpc.config import model as config
from matsci_hpc.models.convert import to_pyg
from matsci_hpc.models.schnet import SchNet

CUTOFF = 3.0
SIZES = config.SchNet(name="schnet", layers=3, width=8, filter_width=7, gaussians=6, embedding_width=4, envelope=True)


def build():
    torch.manual_seed(1)
    encoder = SchNet(SIZES, CUTOFF).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases begin as zeros
    return encoder


def copy_to_pyg(encoder, data):
    """PyG's model on the edges of `data`, with the parameters of ours; its readout is another one and keeps its own."""
    sizes = (SIZES.width, SIZES.filter_width, SIZES.layers, SIZES.gaussians, CUTOFF)
    model = pyg.SchNet(*sizes, interaction_graph=lambda *_: (data.edge_index, data.edge_weight)).double()
    with torch.no_grad():
        model.embedding.weight.copy_(encoder.elements.weight[: len(model.embedding.weight)])
    for block, layer in zip(model.interactions, encoder.layers, strict=True):
        block.mlp.load_state_dict(layer.filter.state_dict())
        block.conv.lin1.load_state_dict(layer.to_filter.state_dict())
        block.conv.lin2.load_state_dict(layer.update[0].state_dict())
        block.lin.load_state_dict(layer.update[2].state_dict())
    return model


def make_constants_exact(model):
    """In double precision: PyG computes log 2, the centres and the spacing of the Gaussians in float32."""
    model.distance_expansion.offset = torch.linspace(0.0, CUTOFF, SIZES.gaussians, dtype=torch.float64)
    model.distance_expansion.coeff = -0.5 / (CUTOFF / (SIZES.gaussians - 1)) ** 2
    for module in model.modules():
        if isinstance(module, pyg.ShiftedSoftplus):
            module.shift = math.log(2.0)


def pyg_features(model, data):
    """What PyG's own forward hands to its readout."""
    seen = []
    model.lin1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(data.z, data.pos, data.batch)
    return seen[0]


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1e-10), (False, 1e-5)], ids=["exact", "as_released"])
def test_schnet_is_that_of_pytorch_geometric(exact, tolerance, periodic):
    batch = collate([random_graph(s, 3 + s, periodic=periodic, side=3.0) for s in range(3)], CUTOFF)
    batch.position.requires_grad_()
    encoder, data = build(), to_pyg(batch)
    other = copy_to_pyg(encoder, data)
    if exact:
        make_constants_exact(other)
    found = []
    for features in (encoder(batch).features, pyg_features(other, data)):
        (slope,) = torch.autograd.grad(features.square().sum(), batch.position)
        assert slope.abs().max() > 1e-3
        found.append((features, slope))
    torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance)
