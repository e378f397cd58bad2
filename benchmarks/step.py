"""Graphs per core second in training: our E(n)-GNN against one written as in the paper.

    python benchmarks/step.py [--setting pretrain|crystal|both] [--seconds 20] [--threads 1]
        [--allocator keep|default] [--compiled] [--ipex]

A step is forward, backward and AdamW on the cross-entropy of 32 classes. The models take turns within one
process, so that all see the same state of the machine; the median step of each is reported, in core seconds.

- ours, MKL; ours, oneDNN: `matsci_hpc.models` with matrix products by either; training takes oneDNN on AMD alone.
- ours, bf16: with `precision: bf16`, which pays on processors that multiply such numbers, as by AMX.
- textbook: [h_i, h_j, d^2] joined on every edge, `index_add_`, PyTorch's linear layers; the same sizes. Like
  ours, it leaves out the last layer's move of the atoms, which no output reads.

`--compiled` adds the textbook form under torch.compile, and ours with `optimize: compile`; a minute or two.

`--ipex` loads Intel's extension first, which changes operators of torch for all rows: compare with a run without. It
wants an environment with the extension (`make intel`).

Freed memory is kept by the process: glibc's default returns it to the system after each step, and getting it
back page by page costs a third of the step. `--allocator default` shows that; jobs set the same variables.

"Products alone" is the time of the step's matrix products, recorded from a step and repeated by themselves,
as a share of the step: what remains is memory traffic and overhead.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from matsci_hpc.config import model as config
from matsci_hpc.launch.environment import rank_environment
from matsci_hpc.loading.batch import Batch
from matsci_hpc.models import linear
from matsci_hpc.models.egnn import image_shift
from matsci_hpc.models.registry import build_model
from matsci_hpc.processor import this_processor
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.compiled import optimize_model
from matsci_hpc.training.ipex import load_ipex
from matsci_hpc.training.precision import Precision

CLASSES = 32
GRAPHS = 32
SPEC = {"class": TargetSpec(kind="class", classes=tuple(f"class {i}" for i in range(CLASSES)))}
SIZES = {
    "pretrain": config.Egnn(layers=5, width=32, message_width=128, position_width=64),
    "crystal": config.Egnn(layers=3, width=128, message_width=128, position_width=64),
}
KEEP = {name: value for name, value in rank_environment().items() if name.startswith("MALLOC_")}
"""As jobs set them; glibc reads them when a process starts."""
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "_linear_pointwise"}


class TextbookLayer(nn.Module):
    """Eqs. 3-6 of arXiv:2102.09844 with a mean over neighbours in eq. 4."""

    def __init__(self, model: config.Egnn, *, moves: bool) -> None:
        super().__init__()
        width, message = model.width, model.message_width
        self.edge = nn.Sequential(nn.Linear(2 * width + 1, message), nn.SiLU(), nn.Linear(message, message), nn.SiLU())
        self.atom = nn.Sequential(nn.Linear(width + message, width), nn.SiLU(), nn.Linear(width, width))
        self.move = None
        if moves:
            self.move = nn.Sequential(
                nn.Linear(message, model.position_width), nn.SiLU(), nn.Linear(model.position_width, 1)
            )
            nn.init.xavier_uniform_(self.move[-1].weight, gain=1e-3)

    def forward(self, h: Tensor, x: Tensor, batch: Batch, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features and positions after the layer."""
        receiver, sender = batch.receiver, batch.sender
        r = x[sender] - x[receiver] if shift is None else x[sender] + shift - x[receiver]
        message = self.edge(torch.cat([h[receiver], h[sender], r.square().sum(1, keepdim=True)], dim=1))
        received = h.new_zeros(len(h), message.shape[1]).index_add_(0, receiver, message)
        if self.move is not None:
            moved = torch.zeros_like(x).index_add_(0, receiver, r * self.move(message))
            x = x + moved / batch.edge_pointer.diff().clamp(min=1).unsqueeze(1)
        return h + self.atom(torch.cat([h, received], dim=1)), x


class Textbook(nn.Module):
    """Layers, readout and head of the sizes of ours."""

    def __init__(self, model: config.Egnn) -> None:
        super().__init__()
        width, embedding = model.width, model.embedding_width
        self.elements = nn.Embedding(119, width)
        self.layers = nn.ModuleList(TextbookLayer(model, moves=i < model.layers - 1) for i in range(model.layers))
        self.readout = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.head = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, CLASSES))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits [G, classes]."""
        h, x, shift = self.elements(batch.atomic_number), batch.position, image_shift(batch)
        for layer in self.layers:
            h, x = layer(h, x, batch, shift)
        per_atom = self.readout(h)
        total = per_atom.new_zeros(batch.graphs, per_atom.shape[1]).index_add_(0, batch.atom_graph, per_atom)
        return {"class": self.head(total)}


def synthetic_batch(setting: str, graphs: int = GRAPHS) -> Batch:
    """Complete graphs of 25 points, or graphs of 30 atoms with 60 random neighbours each."""
    generator = torch.Generator().manual_seed(0)
    atoms = 25 if setting == "pretrain" else 30
    local = torch.arange(atoms)
    if setting == "pretrain":
        receiver, sender = (~torch.eye(atoms, dtype=torch.bool)).nonzero(as_tuple=True)
        side, image = 2.0, None
    else:
        receiver = local.repeat_interleave(60)
        sender = torch.randint(atoms, (len(receiver),), generator=generator)
        side = 6.0
        image = torch.randint(-1, 2, (graphs * len(receiver), 3), generator=generator).to(torch.int8)
    first = torch.arange(graphs).mul(atoms).unsqueeze(1)
    total = graphs * atoms
    degree = len(receiver) // atoms
    kind = torch.int32  # as collate makes them
    return Batch(
        atomic_number=torch.randint(1, 90, (total,), generator=generator).to(kind),
        position=torch.rand(total, 3, generator=generator) * side,
        cell=(side * torch.eye(3)).expand(graphs, 3, 3),
        atom_graph=torch.arange(graphs).repeat_interleave(atoms).to(kind),
        atom_pointer=(torch.arange(graphs + 1) * atoms).to(kind),
        sender=(sender + first).flatten().to(kind),
        receiver=(receiver + first).flatten().to(kind),
        edge_pointer=(torch.arange(total + 1) * degree).to(kind),
        edge_image=image,
        targets={"class": torch.randint(CLASSES, (graphs,), generator=generator)},
    )


class RecordProducts(TorchDispatchMode):
    """Keeps every matrix product that runs, to be repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func.overloadpacket.__name__ in PRODUCTS:
            kept = [a.detach() if isinstance(a, Tensor) else a for a in args]
            self.calls.append(lambda: func(*kept, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def training_step(model: nn.Module, batch: Batch, precision: str = "float32") -> Callable[[], None]:
    """One optimiser step on the batch, as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    way = Precision(precision)

    def step() -> None:
        with way.autocast():
            logits = model(batch)["class"]
        functional.cross_entropy(logits.float(), batch.targets["class"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def with_products(step: Callable[[], None], *, onednn: bool) -> Callable[[], None]:
    """The same step with products by oneDNN, or by PyTorch's linear layers."""

    def patched() -> None:
        linear._ONEDNN, kept = onednn, linear._ONEDNN  # noqa: SLF001
        try:
            step()
        finally:
            linear._ONEDNN = kept  # noqa: SLF001

    return patched


def elapsed(function: Callable[[], Any]) -> float:
    """Core seconds of one call: with one thread, what other programs on the machine do hardly matters."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compiled_steps(sizes: config.Egnn, batch: Batch) -> dict[str, Callable[[], None]]:
    """Both forms as the compiler makes them."""
    ours = build_model(sizes, SPEC, 6.0, {})
    optimize_model(ours, ours.encoder, lambda: batch, Precision("float32"))
    textbook = Textbook(sizes)
    textbook.compile()
    return {"textbook, compiled": training_step(textbook, batch), "ours, compiled": training_step(ours, batch)}


def measure(setting: str, seconds: float, *, compiled: bool) -> None:
    """Print the table of one setting."""
    batch, sizes = synthetic_batch(setting), SIZES[setting]
    torch.manual_seed(0)
    ours = build_model(sizes, SPEC, 6.0, {})
    steps = {
        "textbook": training_step(Textbook(sizes), batch),
        "ours, MKL": with_products(training_step(ours, batch), onednn=False),
        "ours, oneDNN": with_products(training_step(ours, batch), onednn=True),
        "ours, bf16": training_step(ours, batch, "bf16"),
    }
    products = {}
    for name, step in steps.items():
        step()
        with RecordProducts() as products[name]:
            step()
    if compiled:  # not recorded: torch would forget what it compiled
        steps |= compiled_steps(sizes, batch)
        for step in steps.values():
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    alone: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            times[name].append(elapsed(step))
            if name in products:
                alone[name].append(sum(elapsed(call) for call in products[name].calls))
    rounds = len(times["textbook"])
    print(f"{setting}: {GRAPHS} graphs, {batch.atoms} atoms, {batch.edges} edges, {rounds} rounds")
    print(f"  {'model':18} {'core ms':>8} {'graphs/core s':>14} {'x textbook':>11} {'products alone':>15}")
    base = median(times["textbook"])
    for name in steps:
        step_s = median(times[name])
        share = f"{median(alone[name]) / step_s:15.0%}" if alone[name] else f"{'-':>15}"
        print(f"  {name:18} {1e3 * step_s:8.1f} {GRAPHS / step_s:14.0f} {base / step_s:11.2f} {share}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--seconds", type=float, default=20.0, help="per setting")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--allocator", choices=["keep", "default"], default="keep")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--ipex", action="store_true")
    options = parser.parse_args()
    if options.allocator == "keep" and not KEEP.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP, **os.environ})  # noqa: S606
    torch.set_num_threads(options.threads)
    if options.ipex:
        load_ipex("cpu")
    print(f"{this_processor().model}, torch {torch.__version__}{', IPEX' if options.ipex else ''}")
    for setting in SIZES if options.setting == "both" else [options.setting]:
        measure(setting, options.seconds, compiled=options.compiled)


if __name__ == "__main__":
    main()
