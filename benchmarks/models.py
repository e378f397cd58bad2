"""Training steps of all encoders, with our operators and with DGL's, and SchNet as PyTorch Geometric has it.

    python benchmarks/models.py [--seconds 40]

One thread, 32 crystals of 30 atoms with 60 neighbours each, every encoder with 3 layers of width 64; forward, backward
and AdamW. The models take turns within one process; the median step of each is reported in core seconds. PyTorch
Geometric's SchNet gets the neighbours that are there, like ours, and has a readout of its own; DGL needs Python 3.11.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from step import CLASSES, GRAPHS, KEEP, elapsed, synthetic_batch, training_step
from torch import Tensor, nn
from torch_geometric.nn.models import SchNet as PygSchNet

from matsci_hpc.config import model as config
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.convert import to_pyg
from matsci_hpc.models.registry import build_model
from matsci_hpc.targets import TargetSpec

CUTOFF = 6.0
WIDTH, LAYERS, GAUSSIANS = 64, 3, 50
ENCODERS: dict[str, Callable[..., config.Encoder]] = {
    "egnn": lambda **way: config.Egnn(width=WIDTH, message_width=WIDTH, layers=LAYERS, **way),
    "schnet": lambda **way: config.SchNet(
        name="schnet", width=WIDTH, filter_width=WIDTH, layers=LAYERS, gaussians=GAUSSIANS, **way
    ),
    "painn": lambda **way: config.PaiNN(name="painn", width=WIDTH, layers=LAYERS, **way),
    "megnet": lambda **way: config.MegNet(
        name="megnet", width=WIDTH, hidden_width=WIDTH, layers=LAYERS, gaussians=GAUSSIANS, **way
    ),
}


class Neighbours(nn.Module):
    """Gives PyTorch Geometric's SchNet the edges of the batch, in the place of a search for them."""

    def __init__(self) -> None:
        super().__init__()
        self.edges: tuple[Tensor, Tensor] | None = None

    def forward(self, position: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
        """`edge_index` [2, E] and distances [E]."""
        del position, graph
        assert self.edges is not None  # noqa: S101 - set by the caller
        return self.edges


class Geometric(nn.Module):
    """PyTorch Geometric's SchNet, one number per graph, and the classes of the benchmark from that."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = Neighbours()
        self.net = PygSchNet(
            hidden_channels=WIDTH,
            num_filters=WIDTH,
            num_interactions=LAYERS,
            num_gaussians=GAUSSIANS,
            cutoff=CUTOFF,
            interaction_graph=self.neighbours,
        )
        self.head = nn.Linear(1, CLASSES)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits [G, classes]."""
        graph = to_pyg(batch)
        self.neighbours.edges = graph.edge_index, graph.edge_weight
        return {"class": self.head(self.net(graph.z, graph.pos, graph.batch))}


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    options = parser.parse_args()
    if not KEEP.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP, **os.environ})  # noqa: S606
    torch.set_num_threads(1)
    batch = synthetic_batch("crystal")
    spec = {"class": TargetSpec(kind="class", classes=tuple(f"class {i}" for i in range(CLASSES)))}
    steps = {
        f"{name}, {backend}": training_step(build_model(make(backend=backend), spec, CUTOFF, {}), batch)
        for name, make in ENCODERS.items()
        for backend in ("own", "dgl")
    }
    steps["schnet, PyG"] = training_step(Geometric(), batch)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            times[name].append(elapsed(step))
    print(f"{GRAPHS} graphs, {batch.atoms} atoms, {batch.edges} edges, {len(times['egnn, own'])} rounds")
    print(f"  {'model':14} {'core ms':>8} {'graphs/core s':>14} {'x own':>6}")
    for name, taken in sorted(times.items(), key=lambda item: list(ENCODERS).index(item[0].partition(",")[0])):
        own = median(times[f"{name.partition(',')[0]}, own"])
        print(f"  {name:14} {1e3 * median(taken):8.1f} {GRAPHS / median(taken):14.0f} {median(taken) / own:6.2f}")


if __name__ == "__main__":
    main()
