"""The forward pass of an encoder as written from the paper: joined rows, `index_add_`, plain linear."""

import math

import torch
from torch.nn.functional import linear


def textbook_encode(encoder, batch):
    """Features [A, width], positions [A, 3], embedding [G, embedding_width], with the encoder's weights."""
    sender, receiver, atoms = batch.sender, batch.receiver, batch.atoms
    h, x = encoder.elements(batch.atomic_number), batch.position
    shift = 0.0
    if batch.edge_image is not None:
        shift = torch.einsum("ek,ekd->ed", batch.edge_image.to(x.dtype), batch.cell[batch.atom_graph[receiver]])
    initial = (x[sender] + shift - x[receiver]).norm(dim=1, keepdim=True)
    weight = torch.ones_like(initial)
    if encoder.envelope:
        weight = 0.5 * (1 + torch.cos(math.pi * initial / encoder.cutoff))
    neighbors = torch.zeros(atoms, 1, dtype=x.dtype).index_add_(0, receiver, weight)
    for layer in encoder.layers:
        r = x[sender] + shift - x[receiver]
        d = r.norm(dim=1, keepdim=True)
        radial = [4 * torch.log(1 + d * d)]
        centers = encoder.radial.centers
        radial += [torch.exp(-0.5 * ((d - c) / (centers[1] - centers[0])) ** 2) for c in centers]
        joined = torch.cat([h[receiver], h[sender], *radial], dim=1)
        m = _silu(linear(joined, layer.edge_first.weight, layer.edge_first.bias))
        m = weight * _silu(linear(m, layer.edge_second.weight, layer.edge_second.bias))
        received = torch.zeros(atoms, m.shape[1], dtype=m.dtype).index_add_(0, receiver, m)
        h = h + _mlp(layer.atom_net, torch.cat([h, received], dim=1))
        if layer.position_net is not None:
            step = r / (1 + d) * torch.tanh(_mlp(layer.position_net, m)) * weight
            x = x + torch.zeros_like(x).index_add_(0, receiver, step) / (1 + neighbors)
    per_atom = _mlp(encoder.atom_readout, h)
    embedding = torch.zeros(batch.graphs, per_atom.shape[1], dtype=x.dtype)
    embedding.index_add_(0, batch.atom_graph, per_atom)
    if encoder.readout == "mean":
        embedding = embedding / batch.atom_pointer.diff()[:, None]
    return h, x, embedding


def _silu(z):
    return z * torch.sigmoid(z)


def _mlp(net, z):
    return linear(_silu(linear(z, net[0].weight, net[0].bias)), net[2].weight, net[2].bias)
