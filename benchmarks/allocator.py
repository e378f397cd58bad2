"""What the malloc variables of a rank bring: core time and fetched memory pages of a training step.

    python benchmarks/allocator.py [--graphs 100] [--steps 6] [--rounds 2]

A step is forward, backward and AdamW of the E(n)-GNN of the published pretraining (5 layers, 32/128/64) on complete
graphs of 25 points, one thread. Each way runs in a process of its own; the ways take turns, and the medians of all
steps are reported.

- nothing: glibc as it is.
- refused: MALLOC_MMAP_THRESHOLD_ as glibc before 2.35 takes a value above 32 MiB, which is not at all: the threshold
  stays at 128 KiB, because MALLOC_TRIM_THRESHOLD_ is set.
- variables: those of `matsci_hpc.launch.environment`.
- call: `keep_freed_memory` in a process without them, as `matsci-hpc train` does.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median

from matsci_hpc.launch.environment import rank_environment

MALLOC = {name: value for name, value in rank_environment().items() if name.startswith("MALLOC_")}
WAYS = {
    "nothing": {},
    "refused": {**MALLOC, "MALLOC_MMAP_MAX_": "65536", "MALLOC_MMAP_THRESHOLD_": "131072"},
    "variables": MALLOC,
    "call": {},
}


def steps(graphs: int, count: int, *, call: bool) -> list[tuple[float, float]]:
    """Core seconds and fetched pages of each step, in this process."""
    import torch
    from torch.nn import functional

    from matsci_hpc.config import train as config
    from matsci_hpc.loading.batch import Batch
    from matsci_hpc.models.registry import build_model
    from matsci_hpc.targets import TargetSpec
    from matsci_hpc.training.allocator import keep_freed_memory

    torch.set_num_threads(1)
    if call:
        keep_freed_memory()
    torch.manual_seed(0)
    atoms, kind = 25, torch.int32
    receiver, sender = (~torch.eye(atoms, dtype=torch.bool)).nonzero(as_tuple=True)
    first = torch.arange(graphs).mul(atoms).unsqueeze(1)
    batch = Batch(
        atomic_number=torch.randint(1, 90, (graphs * atoms,)).to(kind),
        position=2 * torch.rand(graphs * atoms, 3),
        cell=torch.eye(3).expand(graphs, 3, 3),
        atom_graph=torch.arange(graphs).repeat_interleave(atoms).to(kind),
        atom_pointer=(torch.arange(graphs + 1) * atoms).to(kind),
        sender=(sender + first).flatten().to(kind),
        receiver=(receiver + first).flatten().to(kind),
        edge_pointer=(torch.arange(graphs * atoms + 1) * (atoms - 1)).to(kind),
        edge_image=None,
        targets={"class": torch.randint(32, (graphs,))},
    )
    sizes = config.Model(layers=5, width=32, message_width=128, position_width=64)
    classes = tuple(f"class {i}" for i in range(32))
    model = build_model(sizes, {"class": TargetSpec(kind="class", classes=classes)}, 6.0, {})
    optimizer = torch.optim.AdamW(model.parameters())
    found = []
    for _ in range(count + 2):
        start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        functional.cross_entropy(model(batch)["class"], batch.targets["class"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        found.append((time.process_time() - start, float(pages)))
    return found[2:]


def measure(graphs: int, count: int, rounds: int) -> None:
    """Run the ways in turns, and print the table."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, variables in WAYS.items():
            words = [sys.executable, __file__, "--way", way, "--graphs", str(graphs), "--steps", str(count)]
            answer = subprocess.run(words, env=around | variables, capture_output=True, text=True, check=True)
            found[way] += json.loads(answer.stdout)
    base = median(time_s for time_s, _ in found["nothing"])
    print(f"{'way':10} {'core ms':>8} {'pages':>9} {'x nothing':>10}")
    for way, each in found.items():
        time_s, pages = (median(column) for column in zip(*each, strict=True))
        print(f"{way:10} {1e3 * time_s:8.0f} {pages:9,.0f} {base / time_s:10.2f}")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help="one way, in this process, as JSON")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(steps(options.graphs, options.steps, call=options.way == "call")))
    else:
        measure(options.graphs, options.steps, options.rounds)


if __name__ == "__main__":
    main()
