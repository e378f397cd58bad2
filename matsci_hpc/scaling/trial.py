"""Steps of one rank, here and now, with shares of several sizes: what a step costs and when its gradients are whole.

    python -m matsci_hpc.scaling.trial CONFIG RANKS,RANKS,... SECONDS [KEY=VALUE]...

A process of its own, started with the environment of a rank, as the trial of `matsci-hpc check` is, which knows shares
of one size only. It writes nothing but one JSON object, as the last line that it prints.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch.nn import Parameter

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MatsciError
from matsci_hpc.loading.divide import micro_batches
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.loading.permutation import Numbers
from matsci_hpc.loading.plan import COST
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.parallel.device import finish_work, take_device
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.exchange import cut_into_buckets
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.scaling.loads import shares_of
from matsci_hpc.training.allocator import keep_freed_memory
from matsci_hpc.training.gradient_order import in_backward_order
from matsci_hpc.training.ipex import load_ipex
from matsci_hpc.training.kernels import decide_kernel
from matsci_hpc.training.lone_step import accumulate_gradients, update_parameters
from matsci_hpc.training.setup import Run, build_run

FEWEST = 3
"""Steps of every size that are measured, whatever time they take."""
MOST = 400
"""Of all sizes together."""
TOO_LONG = 0.25
"""Share of the time that one step may take; larger shares are not measured then."""
SUMMED = 1 << 20
"""Numbers of a tensor that is added up."""


@dataclass(slots=True)
class Steps:
    """What was measured, step by step.

    Attributes:
        device: type of it.
        threads: that the steps were computed with.
        costs: predicted cost of each share.
        compute_s, optimizer_s, input_s: of each step.
        bucket_bytes: of each bucket, as it is sent.
        left: for each step, for each bucket the share of compute_s that was still ahead when it was whole.
        sum_bytes_per_s: how fast a tensor is added to another.
    """

    device: str
    threads: int
    costs: list[float] = field(default_factory=list)
    compute_s: list[float] = field(default_factory=list)
    optimizer_s: list[float] = field(default_factory=list)
    input_s: list[float] = field(default_factory=list)
    bucket_bytes: list[int] = field(default_factory=list)
    left: list[list[float]] = field(default_factory=list)
    sum_bytes_per_s: float = 0.0


class _Stepper:
    """Takes steps without the exchange between ranks."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.gradients = FlatGradients(in_backward_order(run))
        parallel = run.config.parallel
        self.buckets = list(cut_into_buckets(self.gradients, 1e6 * parallel.bucket_mb))
        self.found = Steps(run.device.type, torch.get_num_threads())
        short = parallel.compression != "none"
        self.found.bucket_bytes = [
            each.part.numel() * (2 if short else each.part.element_size()) for each in self.buckets
        ]
        self._whole_s = [0.0] * len(self.buckets)
        for number, bucket in enumerate(self.buckets):
            for each in bucket.parameters:
                each.register_post_accumulate_grad_hook(partial(self._note, number))  # type: ignore[no-untyped-call]

    def _note(self, number: int, _: Parameter) -> None:
        """A gradient of the bucket is there; the last one that comes is the one that counts."""
        self._whole_s[number] = time.perf_counter()

    def step(self, share: Numbers, *, counts: bool) -> float:
        """One step; its time, without the input.

        Args:
            share: numbers of the samples.
            counts: whether it is measured, rather than a warm-up.
        """
        run, batch_config = self.run, self.run.config.batch
        costs = COST.of(run.collection.atoms(share), run.collection.edges(share))
        parts = micro_batches(costs, batch_config.micro_batches, batch_config.micro_cost)
        targets = {name: max(1, count) for name, count in run.collection.carriers(share).items()}
        if counts:
            # A run opens each shard once, and its memory is mapped once; in a trial every other sample would do that.
            for part in parts:
                checked_batch(run.collection, share[part])
        start_s = time.perf_counter()
        batches = [checked_batch(run.collection, share[part]) for part in parts]
        ready_s = time.perf_counter()
        accumulate_gradients(run, self.gradients, batches, targets)
        finish_work(run.precision.device)
        computed_s = time.perf_counter()
        update_parameters(run, self.gradients)
        finish_work(run.precision.device)
        end_s = time.perf_counter()
        if counts:
            self.found.costs.append(float(costs.sum()))
            self.found.input_s.append(ready_s - start_s)
            self.found.compute_s.append(computed_s - ready_s)
            self.found.optimizer_s.append(end_s - computed_s)
            # One that no gradient reached is sent at the end.
            whole = [each if each > ready_s else computed_s for each in self._whole_s]
            self.found.left.append([max(computed_s - each, 0.0) / (computed_s - ready_s) for each in whole])
        return end_s - ready_s


def run_trial(config: TrainConfig, ranks: Sequence[int], limit_s: float) -> Steps:
    """Take steps with the shares of so many ranks, sizes in turn.

    Args:
        config: of the run; nothing is written to its folder.
        ranks: numbers of ranks whose shares are taken.
        limit_s: after so long no further step begins.

    Raises:
        UserInputError: data and config do not fit.
        MachineError: a shard is missing or damaged, or the device cannot be used.
    """
    keep_freed_memory()
    device = take_device(config.device, discover({}))
    if config.optimize == "ipex":
        load_ipex(device.type)
    run = build_run(config, open_collection(config.data), SingleProcess(), device)
    decide_kernel(run)
    run.model.train()
    stepper = _Stepper(run)
    sizes: list[Iterator[Numbers]] = []
    for count in sorted(set(ranks), reverse=True):  # small shares first
        shares = shares_of(config, run.collection, count)
        stepper.step(next(shares), counts=False)
        sizes.append(shares)
        if stepper.step(next(shares), counts=True) > TOO_LONG * limit_s:
            break
    start_s = time.perf_counter()
    found = stepper.found
    while len(found.costs) < FEWEST * len(sizes) or (
        time.perf_counter() - start_s < limit_s and len(found.costs) < MOST
    ):
        for shares in sizes:
            stepper.step(next(shares), counts=True)
    found.sum_bytes_per_s = _adding(run)
    return found


def _adding(run: Run) -> float:
    """Bytes per second of a sum of two tensors, at best."""
    one = torch.ones(SUMMED, device=run.device)
    other = torch.ones(SUMMED, device=run.device)
    times = []
    for _ in range(20):
        finish_work(run.precision.device)
        start_s = time.perf_counter()
        one.add_(other)
        finish_work(run.precision.device)
        times.append(time.perf_counter() - start_s)
    return one.numel() * one.element_size() / min(times)


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, try, and print what was found."""
    config, ranks, limit_s, *overrides = arguments
    try:
        checked = load_config(TrainConfig, Path(config), overrides)
        found = run_trial(checked, [int(each) for each in ranks.split(",")], float(limit_s))
    except MatsciError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(found)), flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    sys.exit(main(sys.argv[1:]))
