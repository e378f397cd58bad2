"""A training step on one GPU: our E(n)-GNN, the textbook form of the same model, and its PyTorch Geometric form.

    python benchmarks/gpu_step.py [--graphs 32 1024] [--setting pretrain|crystal|both] [--seconds 2] [--largest]

A step is forward, backward and AdamW on the cross-entropy of 32 classes; forms take turns, the median of each is
reported. Sizes and the textbook form are those of `step.py`; the PyTorch Geometric form needs the extra `pyg`.

- FLOP/s are those of the matrix products alone, as a share of what an 8192 x 8192 product reaches in the same run.
- Traffic is what the kernels of an eager step read and write, each tensor once, as a share of what a copy reaches.
- `--largest` doubles the batch until the memory of the GPU is full.
"""

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import fields, replace
from statistics import median
from typing import Any

import torch
from step import CLASSES, GRAPHS, SIZES, Textbook, synthetic_batch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.nn import MessagePassing

from matsci_hpc.loading.batch import Batch
from matsci_hpc.models.device_sums import Name, usable_kernels, use_kernel
from matsci_hpc.models.registry import build_model
from matsci_hpc.targets import TargetSpec
from matsci_hpc.training.compiled import optimize_model
from matsci_hpc.training.precision import Precision

SIDE = 8192
DEVICE = "cuda"


class GeometricLayer(MessagePassing):
    """The layer of `Textbook` as PyTorch Geometric writes it: `message` on every edge, `aggregate`, `update`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(aggr="sum")
        self.edge, self.atom, self.move = layer.edge, layer.atom, layer.move

    def forward(self, h: Tensor, x: Tensor, batch: Batch, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features and positions after the layer."""
        index = torch.stack((batch.sender, batch.receiver)).long()
        message, move = self.propagate(index, h=h, x=x, shift=shift)
        if move is not None:
            x = x + move / batch.edge_pointer.diff().clamp(min=1).unsqueeze(1)
        return h + self.atom(torch.cat([h, message], dim=1)), x

    def message(self, h_i: Tensor, h_j: Tensor, x_i: Tensor, x_j: Tensor, shift: Any) -> Any:
        """Message and move of every edge."""
        r = x_j - x_i if shift is None else x_j + shift - x_i
        message = self.edge(torch.cat([h_i, h_j, r.square().sum(1, keepdim=True)], dim=1))
        return message, None if self.move is None else r * self.move(message)

    def aggregate(self, inputs: Any, index: Tensor, dim_size: Any = None) -> Any:
        """Sums at the receivers, by PyTorch Geometric's own aggregation."""
        message, move = inputs
        summed = self.aggr_module(message, index, dim_size=dim_size)
        return summed, None if move is None else self.aggr_module(move, index, dim_size=dim_size)


def geometric(sizes: Any) -> nn.Module:
    """`Textbook` with layers of PyTorch Geometric."""
    model = Textbook(sizes)
    model.layers = nn.ModuleList(map(GeometricLayer, model.layers))
    return model


def repeated(batch: Batch, times: int) -> Batch:
    """The batch so many times over, as one."""

    def shifted(tensor: Tensor, step: int) -> Tensor:
        return torch.cat([tensor + i * step for i in range(times)])

    def pointer(tensor: Tensor) -> Tensor:
        return torch.cat((tensor[:1], shifted(tensor[1:], int(tensor[-1]))))

    made = {}
    for each in fields(batch):
        value = getattr(batch, each.name)
        if isinstance(value, Tensor):
            made[each.name] = value.repeat(times, *[1] * (value.ndim - 1))
    return replace(
        batch,
        **made
        | {
            "atom_graph": shifted(batch.atom_graph, batch.graphs),
            "sender": shifted(batch.sender, batch.atoms),
            "receiver": shifted(batch.receiver, batch.atoms),
            "atom_pointer": pointer(batch.atom_pointer),
            "edge_pointer": pointer(batch.edge_pointer),
            "targets": {name: value.repeat(times) for name, value in batch.targets.items()},
        },
    )


class Traffic(TorchDispatchMode):
    """Bytes of the tensors that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            for each in {id(t): t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)}.values():
                self.bytes += each.numel() * each.element_size()
        return made


class Form:
    """A way to take the step."""

    def __init__(self, model: nn.Module, precision: Precision, kernel: Name | None = None) -> None:
        self.model, self.precision, self.kernel = model, precision, kernel
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self, batch: Batch) -> None:
        """One optimiser step."""
        if self.kernel is not None:
            use_kernel(self.kernel)
        with self.precision.autocast():
            logits = self.model(batch)["class"]
        functional.cross_entropy(logits.float(), batch.targets["class"]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def forms(setting: str, sample: Batch) -> dict[str, Form]:
    """All of them, with parameters of their own."""
    sizes, plain, bf16 = SIZES[setting], Precision("float32", DEVICE), Precision("bf16", DEVICE)
    spec = {"class": TargetSpec(kind="class", classes=tuple(f"class {i}" for i in range(CLASSES)))}
    best: Name = "triton" if "triton" in usable_kernels() else "segment"

    def ours(precision: Precision, *, compiled: bool) -> nn.Module:
        torch.manual_seed(0)
        model = build_model(sizes, spec, 6.0, {}).to(DEVICE)
        if compiled:
            use_kernel(best)
            optimize_model(model, model.encoder, lambda: sample, precision)
        return model

    made = {"textbook": Form(Textbook(sizes).to(DEVICE), plain), "PyG": Form(geometric(sizes).to(DEVICE), plain)}
    made["PyG, bf16"] = Form(geometric(sizes).to(DEVICE), bf16)
    for kernel in usable_kernels():
        made[f"ours, {kernel}"] = Form(ours(plain, compiled=False), plain, kernel)
    made["ours, bf16"] = Form(ours(bf16, compiled=False), bf16, best)
    made["ours, compiled"] = Form(ours(plain, compiled=True), plain, best)
    made["ours, compiled, bf16"] = Form(ours(bf16, compiled=True), bf16, best)
    return made


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the GPU is done."""
    torch.cuda.synchronize()
    start_s = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start_s


def peaks() -> dict[str, float]:
    """FLOP/s of a large product in float32 and bf16, and bytes per second of a copy, read and written."""
    found = {}
    for name, kind in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(SIDE, SIDE, device=DEVICE, dtype=kind) for _ in range(2))
        found[name] = 2 * SIDE**3 / min(timed(lambda a=a, b=b: a @ b) for _ in range(10))
    source = torch.empty(2**30, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.numel() / min(timed(lambda: target.copy_(source)) for _ in range(10))
    return found


def measure(setting: str, made: dict[str, Form], graphs: int, seconds: float, peak: dict[str, float]) -> None:
    """Print the table of one setting and size."""
    batch = repeated(synthetic_batch(setting), max(1, graphs // GRAPHS)).to(DEVICE)
    counts = {}
    for name, form in made.items():
        for _ in range(3):
            form.step(batch)
        flops, traffic = FlopCounterMode(display=False), Traffic()
        if "compiled" not in name:  # counting would make torch forget what it compiled, without a word
            with flops:
                form.step(batch)
            with traffic:
                form.step(batch)
        torch.cuda.reset_peak_memory_stats()
        form.step(batch)
        counts[name] = flops.get_total_flops(), traffic.bytes, torch.cuda.max_memory_allocated()
    times: dict[str, list[float]] = {name: [] for name in made}
    end = time.perf_counter() + seconds * len(made)
    while time.perf_counter() < end:
        for name, form in made.items():
            times[name].append(timed(lambda form=form: form.step(batch)))
    print(f"\n{setting}: {batch.graphs} graphs, {batch.atoms} atoms, {batch.edges} edges, {len(times['PyG'])} rounds")
    print(
        f"  {'form':22} {'ms':>8} {'graphs/s':>9} {'x textbook':>10} {'x PyG':>6} {'TFLOP/s':>8} {'of peak':>8} "
        f"{'of copy':>8} {'GB':>6}"
    )
    eager_flops = counts["ours, bf16"][0]
    for name in made:
        step_s = median(times[name])
        work, moved, memory = counts[name]
        # What the compiler makes is not counted, and does the same products as ours without it.
        rate = (eager_flops if "compiled" in name else work) / step_s
        share = rate / peak["bf16" if "bf16" in name else "float32"]
        traffic_share = f"{moved / step_s / peak['copy']:8.0%}" if moved else f"{'-':>8}"
        print(
            f"  {name:22} {1e3 * step_s:8.2f} {batch.graphs / step_s:9.0f} "
            f"{median(times['textbook']) / step_s:10.2f} {median(times['PyG']) / step_s:6.2f} {rate / 1e12:8.1f} "
            f"{share:8.0%} {traffic_share} {memory / 1e9:6.2f}",
            flush=True,
        )


def largest(setting: str, made: dict[str, Form]) -> None:
    """Print the largest batch of some forms, in powers of two."""
    small = synthetic_batch(setting)
    print(f"\nlargest batch of {setting}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB:")
    for name, form in made.items():
        if name not in {"textbook", "PyG", "ours, triton", "ours, compiled", "ours, compiled, bf16"}:
            continue
        fits, times = 0, 64
        while True:
            gc.collect()
            torch.cuda.empty_cache()
            try:
                batch = repeated(small, times).to(DEVICE)
                form.step(batch)
            except torch.OutOfMemoryError:
                break
            finally:
                batch = None
                form.optimizer.zero_grad()
            fits, times = times * GRAPHS, 2 * times
        print(f"  {name:22} {fits:9,} graphs", flush=True)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, nargs="+", default=[32, 1024])
    parser.add_argument("--setting", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--seconds", type=float, default=2.0, help="per form")
    parser.add_argument("--largest", action="store_true")
    options = parser.parse_args()
    peak = peaks()
    print(
        f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}: product float32 {peak['float32'] / 1e12:.0f}, "
        f"bf16 {peak['bf16'] / 1e12:.0f} TFLOP/s; copy {peak['copy'] / 1e12:.2f} TB/s"
    )
    for setting in SIZES if options.setting == "both" else [options.setting]:
        made = forms(setting, synthetic_batch(setting).to(DEVICE))
        for graphs in options.graphs:
            measure(setting, made, graphs, options.seconds, peak)
        if options.largest:
            largest(setting, made)


if __name__ == "__main__":
    main()
