import math

import pytest
import torch
from torch import nn

from matsci_hpc.telemetry.dynamics.groups import effective_rates, group_name, group_norms, layer_groups, total_norm


@pytest.mark.parametrize(
    ("parameter", "group"),
    [
        ("encoder.layers.12.position_net.0.weight", "encoder.layers.12"),
        ("encoder.elements.weight", "encoder.elements"),
        ("encoder.atom_readout.2.bias", "encoder.atom_readout"),
        ("heads.target:band_gap.net.0.weight", "heads.target:band_gap"),
        ("scale", "scale"),
        ("head.weight", "head"),
    ],
)
def test_a_parameter_belongs_to_its_layer_or_module(parameter, group):
    assert group_name(parameter) == group


def test_norms_of_groups_are_those_of_all_their_numbers():
    model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)})
    model["b"].bias.requires_grad_(False)
    groups = layer_groups(model.named_parameters())
    assert {name: len(each) for name, each in groups.items()} == {"a": 2, "b": 1}
    norms = group_norms(groups)
    a = torch.cat([each.detach().flatten() for each in model["a"].parameters()])
    assert norms["a"] == pytest.approx(float(a.norm()), rel=1e-6)
    assert norms["b"] == pytest.approx(float(model["b"].weight.detach().norm()), rel=1e-6)
    assert total_norm(norms) == pytest.approx(math.hypot(norms["a"], norms["b"]))
    assert effective_rates({"a": 0.5, "b": 1.0}, {"a": 2.0, "b": 0.0}) == {"a": 0.25, "b": None}
