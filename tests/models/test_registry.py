import pytest
import torch
from batches import collate, random_graph

from matsci_hpc.config import model as config
from matsci_hpc.errors import UserInputError
from matsci_hpc.models.registry import build_model
from matsci_hpc.targets import TargetSpec

TARGETS = {
    "band_gap": TargetSpec(kind="regression", unit="eV"),
    "metal": TargetSpec(kind="binary"),
    "system": TargetSpec(kind="class", classes=("cubic", "other", "none")),
    "groups": TargetSpec(kind="multilabel", classes=("C1", "Ci")),
}
SIZES = config.Egnn(layers=2, width=8, message_width=12, position_width=6, embedding_width=10)


def build(targets=TARGETS, scaling=None, seed=0):
    torch.manual_seed(seed)
    return build_model(SIZES, targets, 3.0, scaling or {})


def batch(graphs=3):
    return collate([random_graph(s, 5) for s in range(graphs)], 3.0, torch.float32)


@pytest.mark.parametrize("graphs", [0, 1, 3])
def test_shapes(graphs):
    outputs = build()(batch(graphs))
    shapes = {name: tuple(output.shape) for name, output in outputs.items()}
    expected = {"band_gap": (graphs,), "metal": (graphs,), "system": (graphs, 3), "groups": (graphs, 2)}
    assert shapes == expected
    assert build().embed(batch(graphs)).shape == (graphs, 10)


def test_scaling_travels_with_the_state():
    model = build(scaling={"band_gap": (1.5, 2.0)})
    values = torch.tensor([-0.5, 1.5, 3.5])
    standard = model.standardise("band_gap", values)
    torch.testing.assert_close(standard, torch.tensor([-1.0, 0.0, 1.0]))
    fresh = build(seed=9)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh.physical({"band_gap": standard})["band_gap"], values)
    torch.testing.assert_close(fresh(batch()), model(batch()))


def test_other_kinds_become_probabilities():
    model = build()
    physical = model.physical(model(batch()))
    torch.testing.assert_close(physical["system"].sum(dim=1), torch.ones(3))
    assert ((physical["metal"] > 0) & (physical["metal"] < 1)).all()
    assert torch.equal(model.standardise("metal", torch.ones(2)), torch.ones(2))


def test_constant_target_and_bad_scaling():
    model = build(scaling={"band_gap": (2.0, 0.0)})
    assert torch.equal(model.standardise("band_gap", torch.tensor([2.0])), torch.zeros(1))
    with pytest.raises(UserInputError, match="band_gap"):
        build(scaling={"band_gap": (float("nan"), 1.0)})


def test_every_parameter_gets_a_gradient():
    model = build()
    sum(output.square().sum() for output in model(batch()).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_parameters_depend_on_the_seed_alone():
    reordered = dict(reversed(TARGETS.items()))
    one, other = build().state_dict(), build(reordered).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    encoder_only = build({}).state_dict()
    assert all(torch.equal(one[key], value) for key, value in encoder_only.items())
    differs = build(seed=1).state_dict()
    assert not torch.equal(one["encoder.elements.weight"], differs["encoder.elements.weight"])


@pytest.mark.parametrize("name", ["values", "a.b", "50%.x", "keys"])
def test_any_name_of_a_target(name):
    spec = TargetSpec(kind="binary")
    assert set(build({name: spec})(batch())) == {name}


def test_mistakes():
    with pytest.raises(UserInputError, match="names no classes"):
        build({"system": TargetSpec(kind="class")})


def test_heads_do_not_round_to_bfloat16():
    model, inputs = build(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, embedding = model(inputs), model.embed(inputs)
    assert {output.dtype for output in outputs.values()} == {torch.float32}
    for name, output in outputs.items():
        assert torch.equal(output, model.head(name)(embedding.float()))
    sum(output.sum() for output in outputs.values()).backward()
    assert all(each.grad is not None for each in model.parameters())
