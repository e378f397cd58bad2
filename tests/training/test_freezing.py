"""Which parameters of an encoder are trained in a step, and how fast."""

import math

import pytest
import torch
from torch import nn

from matsci_hpc.config import model as sections
from matsci_hpc.config.fine_tune import FineTune
from matsci_hpc.config.train import Optimizer
from matsci_hpc.errors import UserInputError
from matsci_hpc.models.registry import build_model
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.freezing import Freezing
from matsci_hpc.training.layer_rates import layer_depths, rate_factors
from matsci_hpc.training.optimization import build_optimizer, set_learning_rate

ENCODERS = {
    "egnn": (sections.Egnn(layers=3), "layers"),
    "schnet": (sections.SchNet(name="schnet", layers=3, width=8, filter_width=8), "layers"),
    "painn": (sections.PaiNN(name="painn", layers=3, width=8), "messages"),
    "megnet": (sections.MegNet(name="megnet", layers=3), "layers"),
}


def model_of(section):
    return build_model(section, {"gap": TargetSpec(kind="regression", unit="eV")}, 4.0, {})


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_of_every_encoder_are_told_apart(name):
    section, layers = ENCODERS[name]
    encoder = model_of(section).encoder
    depths = layer_depths(encoder)
    assert depths.keys() == dict(encoder.named_parameters()).keys()
    assert depths["elements.weight"] == 0
    for number in range(3):
        assert {depth for key, depth in depths.items() if key.startswith(f"{layers}.{number}.")} == {number + 1}
    assert {depth for key, depth in depths.items() if "readout" in key} == {4}
    if name == "painn":
        assert {depth for key, depth in depths.items() if key.startswith("updates.1.")} == {2}
    if name == "megnet":
        assert depths["state"] == depths["bond_table.weight"] == 0


def test_rates_fall_from_layer_to_layer_and_those_of_heads_do_not():
    model = model_of(ENCODERS["egnn"][0])
    optimizer = build_optimizer(
        Optimizer(lr=0.1, weight_decay=0.3),
        model,
        rate_factors(model, model.encoder, FineTune(encoder_lr=0.5, layer_decay=0.5)),
    )
    set_learning_rate(optimizer, 0.2)
    names = {id(each): name for name, each in model.named_parameters()}
    rates = {names[id(each)]: group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert rates.keys() == set(names.values())
    assert rates["heads.target:gap.net.0.weight"] == 0.2
    assert rates["encoder.atom_readout.0.bias"] == pytest.approx(0.1)
    assert rates["encoder.layers.2.edge_first.weight"] == pytest.approx(0.05)
    assert rates["encoder.elements.weight"] == pytest.approx(0.2 * 0.5 * 0.5**4)
    decays = {each.ndim >= 2: group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    assert decays == {True: 0.3, False: 0.0}


def test_the_longest_name_decides():
    model = model_of(ENCODERS["egnn"][0])
    section = FineTune(freeze={"encoder": "all", "layers": 9, "layers.2": 3, "encoder.layers.2.atom_net": 5})
    freezing = Freezing(model, section)
    assert freezing.phases == [0, 3, 5, 9]

    def frozen(step):
        return {name.rpartition(".")[0] for name in freezing.frozen_at(step)}

    assert len(freezing.frozen_at(0)) == len(list(model.encoder.parameters()))
    assert "encoder.layers.2.edge_first" not in frozen(3)
    assert "encoder.layers.2.atom_net.0" in frozen(4)
    assert "encoder.layers.2.atom_net.0" not in frozen(5)
    assert "encoder.layers.0.edge_first" in frozen(8)
    assert {name.split(".")[1] for name in frozen(10**9)} == {"elements", "atom_readout"}
    assert FineTune(freeze="encoder").frozen_for == {"encoder": math.inf}


def test_only_what_changes_is_a_new_phase_and_thawed_parameters_ask_for_gradients_again():
    model = model_of(ENCODERS["egnn"][0])
    freezing = Freezing(model, FineTune(freeze=["elements"], freeze_steps=2))
    model.encoder.elements.weight.grad = torch.ones_like(model.encoder.elements.weight)
    assert [freezing.begin(step) for step in (0, 1, 2, 3, 0)] == [True, False, True, False, True]
    assert not model.encoder.elements.weight.requires_grad
    assert model.encoder.elements.weight.grad is None
    freezing.begin(2)
    assert all(each.requires_grad for each in model.parameters())
    plain = Freezing(model, FineTune())
    assert plain.begin(0) is plain.begin(5) is False


class Own(nn.Module):
    """An encoder with statistics, and a layer that its author has frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.net[3].requires_grad_(requires_grad=False)


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Own(), nn.Linear(2, 1)


def test_statistics_and_random_numbers_of_frozen_modules_rest():
    model = Around()
    freezing = Freezing(model, FineTune(freeze="encoder", freeze_steps=2))
    freezing.begin(0)
    model.train()
    freezing.keep_still()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    x = torch.randn(8, 3)
    assert torch.equal(model.encoder.net(x), model.encoder.net(x))
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert model.head.training
    freezing.begin(2)
    model.encoder.net(x)
    assert not torch.equal(before["net.1.running_mean"], model.encoder.state_dict()["net.1.running_mean"])
    assert not model.encoder.net[3].weight.requires_grad  # its author's wish stands


def test_layers_that_are_no_list_cannot_be_told_apart():
    model = Around()
    assert set(rate_factors(model, model.encoder, FineTune(encoder_lr=0.2)).values()) == {0.2, 1.0}
    with pytest.raises(UserInputError, match="keeps its layers in no torch"):
        rate_factors(model, model.encoder, FineTune(layer_decay=0.9))
