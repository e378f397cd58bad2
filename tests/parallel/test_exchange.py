import sys
import threading
import time

import pytest
import torch
from ranks import mpirun, run_command
from torch import nn

from matsci_hpc.parallel.exchange import GradientExchange, reached
from matsci_hpc.parallel.gradients import FlatGradients

NOTHING = torch.zeros(1, dtype=torch.float64)
LAYERS, WORK_S, DELAY_S = 5, 0.05, 0.05
LAYER_BYTES = 8 * (16 * 16 + 16)


class SlowNetwork:
    """A network on which everything takes its time, one after the other; the other rank has the same gradients."""

    rank, size, name = 0, 2, "slow"

    def __init__(self) -> None:
        self.begun: list[tuple[float, int]] = []
        self._line = threading.Lock()

    def all_reduce_start(self, tensor, operation="sum"):
        assert operation == "sum"
        self.begun.append((time.perf_counter(), tensor.numel()))
        return Message(tensor, self._line)


class Message:
    def __init__(self, tensor, line) -> None:
        self.ended_s = 0.0
        self._thread = threading.Thread(target=self._travel, args=(tensor, line))
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def _travel(self, tensor, line) -> None:
        with line:
            time.sleep(DELAY_S)
            tensor.mul_(2)
            self.ended_s = time.perf_counter()


class Hard(torch.autograd.Function):
    """Takes long backward."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, gradient):
        time.sleep(WORK_S)
        return gradient


class Slow(nn.Module):
    """Layers whose backward takes long."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(LAYERS)).double()

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(Hard.apply(x)))
        return x.sum()


def step(overlap, bucket_bytes=LAYER_BYTES, compression="none"):
    """One step: seconds that were waited, the network, the exchange, when backward had ended, the gradients."""
    torch.manual_seed(0)
    model, network = Slow(), SlowNetwork()
    gradients = FlatGradients(list(model.parameters())[::-1])
    exchange = GradientExchange(gradients, network, bucket_bytes, overlap=overlap, compression=compression)
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    with exchange.sending():
        model(x).backward()
    ended_s = time.perf_counter()
    exchange.finish(NOTHING.clone())
    return time.perf_counter() - ended_s, network, exchange, ended_s, gradients.buffer


def test_a_slow_network_is_hidden_behind_backward():
    exposed_s, network, exchange, ended_s, _ = step(overlap=True)
    assert exchange.bucket_sizes == [LAYER_BYTES] * LAYERS
    early = [size for begun_s, size in network.begun if begun_s < ended_s]
    assert len(early) == LAYERS  # all layers are on their way before backward is over; the sums of losses follow
    assert exchange.in_flight_s > exposed_s
    late_s, late, after, late_ended_s, _ = step(overlap=False)
    assert not [size for begun_s, size in late.begun if begun_s < late_ended_s]
    assert after.in_flight_s == pytest.approx(late_s, rel=0.5)  # nothing of it is hidden
    assert exposed_s < 0.7 * late_s  # two of six messages against all of them


def test_gradients_are_the_same_in_whatever_buckets_they_travel():
    _, _, _, _, whole = step(overlap=False, bucket_bytes=1e9)
    for overlap in (True, False):
        for size in (1, 3 * LAYER_BYTES):
            _, network, _, _, parts = step(overlap=overlap, bucket_bytes=size)
            assert torch.equal(parts, whole)
            assert len(network.begun) == (2 * LAYERS if size == 1 else 2) + 1


@pytest.mark.parametrize(("compression", "digits"), [("bf16", 2**-8), ("fp16", 2**-10)])
def test_compressed_gradients_are_rounded_and_no_more(compression, digits):
    _, _, _, _, exact = step(overlap=True)
    _, _, _, _, rounded = step(overlap=True, compression=compression)
    assert rounded.dtype == torch.float64
    torch.testing.assert_close(rounded, exact, rtol=digits, atol=1e-6)
    assert not torch.equal(rounded, exact)


def test_sums_of_losses_keep_their_precision():
    model, network = Slow(), SlowNetwork()
    exchange = GradientExchange(FlatGradients(model.parameters()), network, 1e6, compression="bf16")
    sums = torch.tensor([1 / 3, 1e300], dtype=torch.float64)
    exchange.finish(sums)  # of a rank that had nothing to do
    assert sums.tolist() == [2 / 3, 2e300]


def test_what_backward_does_not_reach_is_zero_and_sent():
    model, network = Slow(), SlowNetwork()
    spare = nn.Linear(2, 2).double()
    gradients = FlatGradients([*spare.parameters(), *list(model.parameters())[::-1]])
    exchange = GradientExchange(gradients, network, 1)
    loss = model(torch.randn(3, 16, dtype=torch.float64, requires_grad=True))
    assert reached([loss]) == set(model.parameters())
    with exchange.sending():
        loss.backward()
    assert not network.begun  # the spare ones stand first, and all wait for them
    exchange.finish(NOTHING.clone())
    assert [size for _, size in network.begun] == [4, 2, *[16, 256] * LAYERS, 1]
    assert spare.weight.grad.abs().max() == 0
    assert model.layers[0].weight.grad.abs().max() > 0


def test_tied_parameters_are_sent_once():
    first, second = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    second.weight = first.weight
    network = SlowNetwork()
    gradients = FlatGradients(dict.fromkeys([*second.parameters(), *first.parameters()]))
    exchange = GradientExchange(gradients, network, 1)
    x = torch.randn(3, 4, dtype=torch.float64)
    (alone,) = torch.autograd.grad(second(first(x)).sum(), [first.weight])
    with exchange.sending():
        second(first(x)).sum().backward()
    exchange.finish(NOTHING.clone())
    assert sorted(size for _, size in network.begun) == [1, 4, 4, 16]
    torch.testing.assert_close(first.weight.grad, 2 * alone)


def test_only_the_last_of_several_passes_sends():
    model, network = Slow(), SlowNetwork()
    gradients = FlatGradients(list(model.parameters())[::-1])
    exchange = GradientExchange(gradients, network, 1)
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    model(x).backward()
    assert not network.begun
    with exchange.sending():
        model(x).backward()
    exchange.finish(NOTHING.clone())
    alone = torch.autograd.grad(model(x), list(model.parameters()))
    torch.testing.assert_close(model.layers[0].weight.grad, 4 * alone[0])


PROGRAM = """\
import sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from matsci_hpc.config.train import Parallel
from matsci_hpc.parallel.communicator import open_communicator
from matsci_hpc.parallel.exchange import GradientExchange
from matsci_hpc.parallel.gradients import FlatGradients

backend, compression = sys.argv[1:]
comm = open_communicator(Parallel(backend=backend))
def model():
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Sequential(nn.Linear(30, 30), nn.Tanh()) for _ in range(6)]).double()
torch.manual_seed(comm.rank)
x = torch.randn(8, 30, dtype=torch.float64)
ours = model()
gradients = FlatGradients(list(ours.parameters())[::-1])
exchange = GradientExchange(gradients, comm, 8e3, compression=compression)
for _ in range(3):
    gradients.zero()
    with exchange.sending():
        ours(x).square().mean().div(comm.size).backward()
    sums = torch.tensor([comm.rank + 1.0], dtype=torch.float64)
    exchange.finish(sums)
assert sums.item() == comm.size * (comm.size + 1) / 2
whole = []
for rank in range(comm.size):
    torch.manual_seed(rank)
    whole.append(torch.randn(8, 30, dtype=torch.float64))
plain = model()
plain(torch.cat(whole)).square().mean().backward()
worst = max(float((a.grad - b.grad).abs().max() / b.grad.abs().max())
            for a, b in zip(ours.parameters(), plain.parameters()))
assert worst < {"none": 1e-12, "bf16": 2e-2, "fp16": 2e-3}[compression], worst
if backend == "gloo":
    theirs = DistributedDataParallel(model(), bucket_cap_mb=0.02)
    theirs(x).square().mean().backward()
    same = max(float((a.grad - b.grad).abs().max() / b.grad.abs().max())
               for a, b in zip(ours.parameters(), theirs.module.parameters()))
    assert compression != "none" or same < 1e-12, same
assert len(exchange.bucket_sizes) > 3 and exchange.in_flight_s > 0
comm.close()
print("as one rank", flush=True)
"""


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("backend", "ranks", "compression"),
    [("gloo", 2, "none"), ("gloo", 3, "bf16"), ("gloo", 2, "fp16"), ("mpi", 3, "none"), ("mpi", 2, "bf16")],
)
def test_real_ranks_get_the_gradients_of_one(tmp_path, backend, ranks, compression):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    result = run_command(mpirun(ranks, sys.executable, program, backend, compression))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("as one rank") == ranks
