"""The same sums by every kernel, on a GPU."""

import pytest
import torch

from matsci_hpc.models.device_sums import KERNELS, REPEATABLE, measure_kernels, usable_kernels, use_kernel
from matsci_hpc.models.segment import EdgeLayout

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
PARTS = ("receiver_sum", "receiver_gather", "ends_sum", "ends_gather", "sender_sum")
ATOMS, EDGES = 700, 20_000


def layout(kind: torch.dtype = torch.int32) -> EdgeLayout:
    """Edges at random; some atoms have none."""
    generator = torch.Generator().manual_seed(1)
    sender, receiver = torch.randint(5, ATOMS, (2, EDGES), generator=generator, dtype=kind)
    receiver = receiver.sort().values
    pointer = torch.zeros(ATOMS + 1, dtype=kind)
    pointer[1:] = torch.bincount(receiver, minlength=ATOMS).cumsum(0)
    return EdgeLayout.of(sender, receiver, pointer)


def on_gpu(made: EdgeLayout, part: str) -> tuple:
    matrix = getattr(made, part)
    return matrix.column.cuda(), matrix.pointer.cuda(), matrix.per_row


def test_the_layout_is_the_same_wherever_it_is_made():
    made = layout()
    receiver = made.receiver_gather.column
    there = EdgeLayout.of(made.sender_gather.column.cuda(), receiver.cuda(), made.receiver_sum.pointer.cuda())
    for part in PARTS:
        here = getattr(made, part)
        assert torch.equal(getattr(there, part).column.cpu(), here.column)
        assert torch.equal(getattr(there, part).pointer.cpu(), here.pointer)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [0, 1, 3, 32, 128, 200])
def test_every_kernel_gives_what_the_processor_gives(kernel, kind, width):
    if kernel not in usable_kernels():
        pytest.skip("no Triton here")
    made = layout()
    for part in PARTS:
        matrix = getattr(made, part)
        values = torch.randn(2 * EDGES, width, dtype=torch.float64).to(kind)
        found = KERNELS[kernel](values.cuda(), *on_gpu(made, part))
        assert found.dtype == kind
        close = {"rtol": 1e-5, "atol": 1e-4} if kind == torch.float32 else {}
        torch.testing.assert_close(found.cpu(), matrix.times(values), **close)


@pytest.mark.parametrize("kernel", REPEATABLE)
def test_repeatable_sums_are_bit_identical(kernel):
    values = torch.randn(2 * EDGES, 128, device="cuda")
    made = layout()
    for part in PARTS:
        first = KERNELS[kernel](values, *on_gpu(made, part))
        assert all(torch.equal(first, KERNELS[kernel](values, *on_gpu(made, part))) for _ in range(20))


@pytest.mark.parametrize("kernel", REPEATABLE)
def test_derivatives_of_any_order(kernel):
    use_kernel(kernel)
    sender, receiver = torch.tensor([4, 0, 2, 2, 0, 4]).cuda(), torch.tensor([0, 0, 2, 2, 2, 3]).cuda()
    small = EdgeLayout.of(sender, receiver, torch.tensor([0, 2, 2, 5, 6, 6]).cuda())
    atoms, edges = (torch.randn(n, 3, dtype=torch.float64, device="cuda", requires_grad=True) for n in (5, 6))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x, y: small.to_edges(x**3, y) ** 2, (atoms, atoms.detach().clone().requires_grad_()))
        assert check(lambda x: small.to_atoms(x**3) ** 2, (edges,))
        assert check(lambda x: small.from_senders(x**3) ** 2, (atoms,))


def test_all_usable_kernels_are_measured():
    values = torch.randn(2 * EDGES, 64, device="cuda")
    found = measure_kernels([(values, *on_gpu(layout(), part)) for part in PARTS])
    assert found.keys() == set(usable_kernels())
    assert all(seconds > 0 for seconds in found.values())
