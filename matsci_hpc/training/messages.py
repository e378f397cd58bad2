"""What rank 0 says of a run."""

import math
import os
import sys

import torch

from matsci_hpc.loading.plan import Plan
from matsci_hpc.parallel.device import device_name
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.training.setup import Run


def announce(run: Run, plan: Plan) -> None:
    """Say what is about to be trained, where and on what."""
    parameters = sum(each.numel() for each in run.model.parameters())
    samples, graphs = plan.samples(0), plan.graphs_per_step
    about = "" if plan.spec.graphs is not None else "about "
    steps = f"{run.config.steps:,} steps" + (f", resuming at step {run.state.step:,}" if run.state.step else "")
    launcher = discover(os.environ).launcher
    where = f"{run.comm.size} ranks by {launcher} over {run.comm.name}" if run.comm.size > 1 else "one rank"
    virtual = run.config.parallel.virtual_ranks
    if virtual > 1:
        where += f" standing for {virtual * run.comm.size}"
    on_device = "" if run.device.type == "cpu" else f", device: {device_name(run.device)}"
    print(
        f"{run.config.run_dir}: {steps}, on {where}, threads per rank: {torch.get_num_threads()}{on_device}\n"
        f"  {parameters:,} parameters; {samples:,} samples and "
        f"{about}{math.ceil(samples / graphs):,} steps an epoch; {len(run.held_out):,} held out",
        flush=True,
    )
    if plan.spec.in_turn:
        print(f"  {run.collection.datasets[0].name}: endless, no sample comes twice", flush=True)
    elif len(set(plan.spec.repeats)) > 1 or plan.spec.repeats[:1] not in {(), (1,)}:
        counts = run.collection.split_counts(plan.spec.split).tolist()
        for each, count, repeat in zip(run.collection.datasets, counts, plan.spec.repeats, strict=True):
            print(f"  {each.name}: {count:,} samples, {float(repeat):.4g} times an epoch", flush=True)
    smallest = min(graphs, samples)
    ranks = run.comm.size * virtual
    if smallest < ranks:
        print(
            f"matsci-hpc: warning: {ranks} ranks share batches of {about}{smallest:.0f} graphs, some have no work",
            file=sys.stderr,
        )
