import pytest
import torch

from matsci_hpc.models.device_sums import scatter, segment
from matsci_hpc.models.segment import EdgeLayout, gather, segment_sum

# Segments 1 and 4 are empty, at an inner place and at the end.
COUNTS = torch.tensor([2, 0, 3, 1, 0])
POINTER = torch.cat((torch.zeros(1, dtype=torch.int64), COUNTS.cumsum(0)))
INDEX = torch.repeat_interleave(COUNTS)
SENDER = torch.tensor([4, 0, 2, 2, 0, 4])


def values(rows, width=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, width, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sum_and_gather_are_what_they_say(dtype):
    edges, atoms = values(6, dtype=dtype), values(5, dtype=dtype)
    expected = torch.zeros(5, 3, dtype=dtype).index_add_(0, INDEX, edges.detach())
    torch.testing.assert_close(segment_sum(edges, INDEX, POINTER), expected)
    assert torch.equal(gather(atoms, INDEX, POINTER), atoms[INDEX])


def test_bfloat16_adds_up_in_float32():
    ones = torch.ones(1000, 8, dtype=torch.bfloat16)
    pointer = torch.tensor([0, 1000])
    assert segment_sum(ones, torch.zeros(1000, dtype=torch.int64), pointer)[0, 0] == 1000


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_derivatives_of_any_order(check):
    order = torch.argsort(SENDER, stable=True)
    sender_pointer = torch.tensor([0, 2, 2, 4, 4, 6])
    layout = EdgeLayout.of(SENDER, INDEX, POINTER)
    # A cube makes the second derivative depend on the values.
    assert check(lambda x: segment_sum(x**3, INDEX, POINTER) ** 2, (values(6),))
    assert check(lambda x: gather(x**3, INDEX, POINTER) ** 2, (values(5),))
    assert check(lambda x: gather(x**3, SENDER, sender_pointer, order) ** 2, (values(5),))
    assert check(lambda x: segment_sum(x**3, SENDER, sender_pointer, order) ** 2, (values(6),))
    assert check(lambda x, y: layout.to_edges(x**3, y) ** 2, (values(5), values(5, 3)))
    assert check(lambda x: layout.to_atoms(x**3) ** 2, (values(6),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["receiver_sum", "receiver_gather", "ends_sum", "ends_gather"])
def test_the_path_of_other_devices_gives_the_same(part, dtype):
    selection = getattr(EdgeLayout.of(SENDER, INDEX, POINTER), part)
    rows = values(10, dtype=dtype).detach()
    for kernel in (scatter, segment):
        found = kernel(rows, selection.column, selection.pointer, selection.per_row)
        torch.testing.assert_close(found, selection.times(rows))


def test_ends_of_edges():
    layout = EdgeLayout.of(SENDER, INDEX, POINTER)
    receiver, sender = values(5), 2 * values(5)
    torch.testing.assert_close(layout.to_edges(receiver, sender), receiver[INDEX] + sender[SENDER])


def test_backward_is_the_scatter_of_torch():
    layout = EdgeLayout.of(SENDER, INDEX, POINTER)
    receiver, sender, weight = values(5), values(5), values(6).detach()
    ours = torch.autograd.grad((layout.to_edges(receiver, sender.sin()) * weight).sum(), (receiver, sender))
    theirs = torch.autograd.grad(((receiver[INDEX] + sender.sin()[SENDER]) * weight).sum(), (receiver, sender))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("atoms", [0, 4])
def test_no_edges(atoms):
    none = torch.empty(0, dtype=torch.int64)
    layout = EdgeLayout.of(none, none, torch.zeros(atoms + 1, dtype=torch.int64))
    at_atoms = torch.ones(atoms, 3, requires_grad=True)
    at_edges = layout.to_edges(at_atoms, at_atoms)
    assert at_edges.shape == (0, 3)
    assert torch.equal(layout.to_atoms(at_edges), torch.zeros(atoms, 3))
    layout.to_atoms(at_edges).sum().backward()
    assert torch.equal(at_atoms.grad, torch.zeros(atoms, 3))
