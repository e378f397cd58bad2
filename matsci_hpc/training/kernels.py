"""`kernels`: who carries out the sums over edges on a GPU, measured once per run on its own data."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.models.device_sums import KERNELS, REPEATABLE, Name, measure_kernels, usable_kernels, use_kernel
from matsci_hpc.models.segment import EdgeLayout, Selection
from matsci_hpc.parallel.together import on_first
from matsci_hpc.training.setup import Run

MEASURED_SAMPLES = 1024
"""Most samples of the batch that the kernels are measured on."""


def decide_kernel(run: Run) -> None:
    """Take the kernel that the config names, else the one of the lives before, else the fastest; collective.

    Ranks on processors take none. Nothing is measured where the first rank computes on one and others on GPUs.

    Raises:
        MachineError: Triton is asked for and not installed.
    """
    on_device = run.device.type != "cpu"
    if not run.comm.all_gather(torch.tensor(float(on_device))).any():
        return
    usable = usable_kernels()
    wanted = run.config.kernels
    if wanted == "auto":
        wanted = on_first(run.comm, lambda: _chosen(run, usable, measures=on_device))
    if on_device and wanted not in usable:
        raise MachineError(f"kernels: {wanted} needs the package triton, which is not installed; set kernels: auto")
    run.state.kernel = wanted
    if on_device:
        use_kernel(cast("Name", wanted))


def _chosen(run: Run, usable: Sequence[Name], *, measures: bool) -> Name:
    """What rank 0 takes."""
    kept = next((name for name in usable if name == run.state.kernel), None)
    if kept is not None:
        return kept
    return _fastest(run) if measures else next(name for name in REPEATABLE if name in usable)


def _fastest(run: Run) -> Name:
    """The fastest one whose sums are the same from run to run, on samples as a rank gets them; said with the times."""
    graphs = run.config.batch.graphs or MEASURED_SAMPLES
    count = max(1, min(graphs // run.comm.size, MEASURED_SAMPLES))
    few = run.collection.in_split(run.config.data.split, count)[:count]
    batch = run.precision.cast(checked_batch(run.collection, few))
    layout = EdgeLayout.of(batch.sender, batch.receiver, batch.edge_pointer)
    model = run.config.model
    width = int(getattr(model, "message_width", getattr(model, "width", 128)))
    kind = torch.bfloat16 if run.precision.name == "bf16" else run.precision.dtype

    def arguments(rows: int, matrix: Selection) -> tuple[Tensor, Tensor, Tensor, int | None]:
        values = torch.randn(rows, width, device=run.device, dtype=kind)
        return values, matrix.column, matrix.pointer, matrix.per_row

    products = [
        (batch.edges, layout.receiver_sum),
        (batch.edges, layout.ends_sum),
        (2 * batch.atoms, layout.ends_gather),
    ]
    found = measure_kernels([arguments(*each) for each in products])
    best = min((name for name in REPEATABLE if name in found), key=lambda name: found[name])
    times = ", ".join(f"{name} {1e6 * found[name]:.0f} us" for name in KERNELS if name in found)
    print(f"sums over edges by {best}, measured on {len(few):,} samples: {times}", flush=True)
    return best
