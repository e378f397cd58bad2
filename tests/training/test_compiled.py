"""Compiled and eager are the same computation, and the same checkpoints."""

from dataclasses import replace

import pytest
import torch
from batches import collate, random_graph
from safetensors.torch import load_file

from matsci_hpc.errors import MachineError
from matsci_hpc.models import egnn
from matsci_hpc.models.linear import _linear_operator, linear, silu_linear
from matsci_hpc.models.registry import build_model
from matsci_hpc.models.segment import EdgeLayout, _product_operator, receiver_ranges
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.compiled import optimize_model, require_compiler
from matsci_hpc.training.precision import Precision

CUTOFF = 3.0


def batch_of(*atoms, dtype=torch.float32):
    return collate([random_graph(n, n, periodic=True) for n in atoms], CUTOFF).to("cpu", dtype)


def build(config):
    torch.manual_seed(1)
    return build_model(config, {"gap": TargetSpec(kind="regression", unit="eV")}, CUTOFF, {})


@pytest.fixture(scope="module")
def sizes():
    from matsci_hpc.config.train import TrainConfig

    section = TrainConfig.model_fields["model"].default
    return section.model_copy(update={"layers": 2, "width": 8, "message_width": 12, "position_width": 6})


def numbers(model, batch):
    model.zero_grad()
    output = model(batch)["gap"]
    output.square().sum().backward()
    return [output.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]


def test_same_numbers_names_and_no_compilation_per_size(sizes):
    eager, compiled = build(sizes), build(sizes)
    optimize_model(compiled, compiled.encoder, lambda: batch_of(4, 5), Precision("float32"))
    assert list(compiled.state_dict()) == list(eager.state_dict())
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert made > 0
    for batch in (batch_of(4, 5), batch_of(7, 3, 6), batch_of(9)):
        torch.testing.assert_close(numbers(compiled, batch), numbers(eager, batch), rtol=1e-5, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made

    # Forces take a derivative of a derivative, which the compiler does not have: eager code steps in.
    def of_forces(model):
        position = batch.position.clone().requires_grad_()
        energy = model.encode(replace(batch, position=position)).embedding.sum()
        (force,) = torch.autograd.grad(-energy, position, create_graph=True)
        return torch.autograd.grad(force.square().sum(), model.encoder.layers[0].edge_first.weight)

    torch.testing.assert_close(of_forces(compiled), of_forces(eager))


def test_edges_in_parts_are_all_edges(sizes, monkeypatch):
    model, batch = build(sizes).double(), batch_of(7, 3, 6, dtype=torch.float64)
    whole = numbers(model, batch)
    monkeypatch.setitem(egnn.EDGE_TENSOR_BYTES, "cpu", 10 * 8 * 12)  # ten edges
    layout = EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer)
    parts = model.encoder.parts(batch, layout)
    assert len(parts) > 5
    assert sum(part.edges for part in parts) == batch.edges
    torch.testing.assert_close(numbers(model, batch), whole, rtol=1e-10, atol=1e-10)


def test_parts_divide_no_atom():
    assert receiver_ranges([0, 2, 2, 5, 6, 6], 3) == [(0, 2), (2, 3), (3, 5)]
    assert receiver_ranges([0, 9], 3) == [(0, 1)]
    assert receiver_ranges([0, 0, 0], 3) == [(0, 2)]
    assert receiver_ranges([0], 3) == [(0, 0)]


def test_operators_keep_the_rules_of_torch():
    layout = EdgeLayout.of(torch.tensor([1, 2, 0]), torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2, 3]))
    one, other = layout.ends_gather, layout.ends_sum
    values = torch.randn(6, 4, requires_grad=True)
    torch.library.opcheck(_product_operator, (values, one.column, one.pointer, other.column, other.pointer, 2, 0))
    weight, bias = torch.randn(3, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    torch.library.opcheck(_linear_operator, (values, weight, bias))


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_derivatives_of_the_fused_perceptron(check):
    made = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 4), (3, 4), (3,))]
    assert check(silu_linear, made)
    torch.testing.assert_close(silu_linear(*made), linear(torch.nn.functional.silu(made[0]), *made[1:]))


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(MachineError, match=r"no /nowhere/c\+\+ on this node.*optimize: none"):
        require_compiler("cpu")


@pytest.mark.mpi
@pytest.mark.slow
def test_two_ranks_and_a_resumed_run(train, lines):
    eager = train("eager", 2, "steps=10")
    compiled = train("compiled", 2, "optimize=compile", "steps=10", "parallel.startup_timeout_s=600")
    for a, b in zip(lines(eager), lines(compiled), strict=True):
        assert a["step"] == b["step"]
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    one, other = (load_file(each / "checkpoints/step-000005/model.safetensors") for each in (eager, compiled))
    assert one.keys() == other.keys()
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    train("compiled", 2, "steps=20")  # goes on eagerly from what a compiled life left
    assert [line["step"] for line in lines(compiled)] == list(range(1, 21))
