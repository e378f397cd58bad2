"""SchNet, PaiNN and the MEGNet-like network written from their papers: loops over atoms and edges, one graph at a time.

Each takes an encoder for its parameters, and a batch; none uses an operator of the package.
"""

import math

import torch
from torch.nn.functional import linear


def ssp(x):
    return torch.log(0.5 * torch.exp(x) + 0.5)


def silu(x):
    return x * torch.sigmoid(x)


def net(layers, x, act):
    """A stack of linear layers with `act` between them."""
    dense = [each for each in layers.modules() if isinstance(each, torch.nn.Linear)]
    for i, each in enumerate(dense):
        x = act(x) if i else x
        x = linear(x, each.weight, each.bias)
    return x


def edges_of(batch):
    """(receiver, sender, vector) of every edge."""
    for e in range(batch.edges):
        i, j = int(batch.receiver[e]), int(batch.sender[e])
        vector = batch.position[j] - batch.position[i]
        if batch.edge_image is not None:
            for k in range(3):
                vector = vector + batch.edge_image[e, k] * batch.cell[batch.atom_graph[i], k]
        yield i, j, vector


def fade(encoder, d):
    return 0.5 * (1 + torch.cos(math.pi * d / encoder.cutoff)) if encoder.envelope else torch.ones_like(d)


def gaussians(encoder, d):
    count = len(encoder.gaussians.numbers)
    step = encoder.cutoff / (count - 1)
    return torch.stack([torch.exp(-((d - k * step) ** 2) / (2 * step**2)) for k in range(count)])


def pooled(encoder, rows, batch):
    per_atom = net(encoder.readout.net, rows, silu)
    graphs = [per_atom[batch.atom_graph == g] for g in range(batch.graphs)]
    return torch.stack([each.sum(0) if encoder.readout.how == "sum" else each.mean(0) for each in graphs])


def schnet(encoder, batch):
    h = encoder.elements.weight[batch.atomic_number.long()]
    for layer in encoder.layers:
        x = [torch.zeros(layer.to_filter.weight.shape[0], dtype=h.dtype) for _ in range(batch.atoms)]
        for i, j, r in edges_of(batch):
            d = r.norm()
            w = net(layer.filter, gaussians(encoder, d), ssp) * fade(encoder, d)
            x[i] = x[i] + (layer.to_filter.weight @ h[j]) * w
        h = h + net(layer.update, torch.stack(x), ssp)
    return pooled(encoder, h, batch)


def painn(encoder, batch):
    """The embedding, and the final vectors [A, 3, F]."""
    s = encoder.elements.weight[batch.atomic_number.long()]
    width = s.shape[1]
    v = torch.zeros(batch.atoms, width, 3, dtype=s.dtype)
    for message, update in zip(encoder.messages, encoder.updates, strict=True):
        ds, dv = torch.zeros_like(s), torch.zeros_like(v)
        for i, j, r in edges_of(batch):
            d = r.norm()
            waves = torch.stack(
                [torch.sin(n * math.pi * d / encoder.cutoff) / d for n in range(1, len(encoder.waves.numbers) + 1)]
            )
            w = linear(waves, message.filter.weight, message.filter.bias) * fade(encoder, d)
            p = net(message.sender_net, s[j], silu) * w
            ds = ds.index_add(0, torch.tensor([i]), p[None, :width])
            gain = v[j] * p[width : 2 * width, None] + torch.outer(p[2 * width :], r / d)
            dv = dv.index_add(0, torch.tensor([i]), gain[None])
        s, v = s + ds, v + dv
        u_matrix, v_matrix = update.mix.weight[:width], update.mix.weight[width:]
        uv, vv = torch.einsum("fg,agk->afk", u_matrix, v), torch.einsum("fg,agk->afk", v_matrix, v)
        a = net(update.update, torch.cat([s, (vv.square().sum(-1) + 1e-8).sqrt()], dim=1), silu)
        s = s + a[:, :width] + a[:, width : 2 * width] * (uv * vv).sum(-1)
        if a.shape[1] == 3 * width:
            v = v + a[:, 2 * width :, None] * uv
    return pooled(encoder, s, batch), v.transpose(1, 2)


def megnet(encoder, batch):
    h = encoder.elements.weight[batch.atomic_number.long()]
    edges = list(edges_of(batch))
    d = [r.norm() for *_, r in edges]
    table = encoder.bond_table
    e = [linear(gaussians(encoder, each), table.weight, table.bias) for each in d]
    u = [encoder.state[0]] * batch.graphs
    graph = batch.atom_graph.tolist()
    for layer in encoder.layers:
        phi_e = torch.nn.Sequential(layer.bond_first, layer.bond_rest)
        e = [
            old + net(phi_e, torch.cat([h[i], u[graph[i]], h[j], old]), ssp)
            for old, (i, j, _) in zip(e, edges, strict=True)
        ]
        mean = []
        for a in range(batch.atoms):
            mine = [(fade(encoder, d[k]), e[k]) for k, (i, _, _) in enumerate(edges) if i == a]
            total = sum((w * value for w, value in mine), torch.zeros_like(u[0]))
            mean.append(total / (1 + sum(w for w, _ in mine)))
        h = torch.stack(
            [h[a] + net(layer.atom_net, torch.cat([mean[a], h[a], u[graph[a]]]), ssp) for a in range(batch.atoms)]
        )
        for g in range(batch.graphs):
            atoms = [a for a in range(batch.atoms) if graph[a] == g]
            means = [torch.stack([mean[a] for a in atoms]).mean(0), h[atoms].mean(0)]
            u[g] = u[g] + net(layer.state_net, torch.cat([*means, u[g]]), ssp)
    return pooled(encoder, torch.stack([torch.cat([h[a], u[graph[a]]]) for a in range(batch.atoms)]), batch)
