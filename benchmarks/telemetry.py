"""What the records cost: a training step of the demo with them and without, taking turns in one process.

    python benchmarks/telemetry.py [--seconds 40] [--log-every 20]
    mpirun -n 2 python benchmarks/telemetry.py

The same batches are trained on again and again by the real loop. Each step is taken with clock, energy counters, the
exchange between the ranks, stragglers, loss dynamics and the files, and without any of them; a round is one logged
interval. Ratios are of the thread's core time, which other programs disturb less, and of the time by the clock. The
last lines count the core time inside of the records' own calls, which says more on a busy machine: those about times,
and those about gradients, updates, Adam's ratio and spikes. `--dynamics-every 1` looks at these in full in every step.
Files lie in a temporary folder.
"""

import argparse
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.config.train import TrainConfig
from matsci_hpc.loading.loader import Loader
from matsci_hpc.loading.opening import open_collection
from matsci_hpc.parallel.communicator import open_communicator
from matsci_hpc.parallel.mpi import World
from matsci_hpc.parallel.together import on_first
from matsci_hpc.prepare import prepare
from matsci_hpc.resources import shipped
from matsci_hpc.telemetry.clock import StepClock
from matsci_hpc.training import step
from matsci_hpc.training.allocator import keep_freed_memory
from matsci_hpc.training.loop import Trainer
from matsci_hpc.training.planning import cost_of, cursor_of, division_of, plan_of
from matsci_hpc.training.run_folder import open_run, run_lock
from matsci_hpc.training.setup import build_run, resume
from matsci_hpc.training.stopping import StopSignals

SAMPLES = 2000


class NoClock(StepClock):
    """Takes no time and notes nothing."""

    def start(self) -> None:
        """Nothing."""

    def lap(self, phase: str) -> None:
        """Nothing."""

    def lap_compute(self, forward_s: float) -> None:
        """Nothing."""

    def stop(self, work: Any) -> None:
        """Nothing."""


class NoRecords:
    """Writes nothing."""

    def note_samples(self, work: Any) -> None:
        """Nothing."""

    def log_step(self, *_: Any) -> None:
        """Nothing."""


class NoDynamics:
    """Looks at no step."""

    def measures(self, step: int) -> bool:  # noqa: ARG002 - none
        """None."""
        return False

    def before_move(self, *_: Any) -> None:
        """Nothing."""

    def after_move(self, *_: Any, moved: bool) -> None:
        """Nothing."""


class NoWatch:
    """Sees no spike."""

    rolls_back = False

    def look(self, *_: Any) -> None:
        """Nothing."""


def switch(trainer: Trainer, clock: StepClock, records: Any, mark: Any, dynamics: Any, watch: Any) -> None:
    """Let the loop take its steps with these."""
    trainer.stepper.dynamics, trainer.stepper.watch = dynamics, watch
    trainer.clock = trainer.stepper.clock = clock
    trainer.records = records
    step.mark = mark  # type: ignore[attr-defined]


class Inside:
    """Core time spent in the calls of the records, counted from outside."""

    def __init__(self) -> None:
        self.core_s = 0.0

    def around(self, owner: Any, names: tuple[str, ...]) -> Any:
        """Count the time of these methods of an object."""
        for name in names:
            setattr(owner, name, self._counted(getattr(owner, name)))
        return owner

    def _counted(self, function: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            start_s = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.core_s += time.thread_time() - start_s

        return counted


def measure(trainer: Trainer, works: list[Any], seconds: float) -> None:
    """Take each step both ways, one after the other, and print the ratios."""
    inside, inside_dynamics = Inside(), Inside()
    records = inside.around(trainer.records, ("note_samples", "log_step"))
    clock = inside.around(StepClock(), ("start", "lap", "lap_compute", "stop"))
    dynamics = inside_dynamics.around(trainer.stepper.dynamics, ("measures", "before_move", "after_move"))
    watch = inside_dynamics.around(trainer.stepper.watch, ("look",))
    ways = {
        "without": (NoClock(), NoRecords(), lambda _: 0.0, NoDynamics(), NoWatch()),
        "with": (clock, records, step.mark, dynamics, watch),
    }
    comm = trainer.run.comm

    def one_round(number: int) -> dict[str, list[float]]:
        taken = {way: [0.0, 0.0] for way in ways}
        for place, work in enumerate(works):
            for way in ways if (number + place) % 2 else reversed(ways):
                switch(trainer, *ways[way])
                core_s, wall_s = time.thread_time(), time.perf_counter()
                with redirect_stdout(StringIO()):
                    trainer._step(iter([work]))  # noqa: SLF001
                taken[way][0] += time.thread_time() - core_s
                taken[way][1] += time.perf_counter() - wall_s
        return taken

    one_round(0)
    round_s = max(sum(wall_s for _, wall_s in one_round(1).values()), 1e-3)
    count = torch.tensor(max(3, int(seconds / round_s)))
    comm.broadcast(count)
    inside.core_s = inside_dynamics.core_s = 0.0
    rounds = [one_round(number) for number in range(int(count))]
    if comm.rank == 0:
        steps = len(rounds) * len(works)
        show(rounds, len(works), {"times": inside.core_s / steps, "loss dynamics": inside_dynamics.core_s / steps})


def show(rounds: list[dict[str, list[float]]], steps: int, inside_s: dict[str, float]) -> None:
    """Print the step and the ratio by both clocks, and what of a step the calls take."""
    for place, name in enumerate(("core time", "wall time")):
        step_ms = {way: 1e3 * median(each[way][place] for each in rounds) / steps for way in rounds[0]}
        ratios = [each["with"][place] / each["without"][place] for each in rounds]
        low, middle, high = quantiles(ratios, n=4)
        print(
            f"{name}: {step_ms['without']:.2f} ms a step without, {step_ms['with']:.2f} ms with; ratio {middle:.4f}, "
            f"half of {len(ratios)} rounds of {steps} steps between {low:.4f} and {high:.4f}"
        )
    step_s = median(each["without"][0] for each in rounds) / steps
    for what, time_s in inside_s.items():
        print(
            f"inside of the records of {what}: {1e3 * time_s:.3f} ms of core time a step, {time_s / step_s:.2%} of it"
        )


def main() -> None:
    """Prepare the data of the demo, or a part of them, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--dynamics-every", type=int)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        demo = shipped("job_templates/runs/demo.yaml")
        first = load_config(TrainConfig, demo, [f"run_dir={folder}"])
        comm = open_communicator(first.parallel)
        folder = Path(on_first(comm, lambda: str(folder)))  # rank 0's, for all
        if comm.rank == 0:
            prep = load_config(
                PrepConfig,
                shipped("data_prep/symmetry_demo.yaml"),
                [f"out={folder / 'data'}", f"source.samples={SAMPLES}"],
            )
            with redirect_stdout(StringIO()):
                prepare(prep, World())
        comm.barrier()
        changes = [f"run_dir={folder / 'run'}", f"data.train=[{folder / 'data'}]", f"log_every={options.log_every}"]
        if options.dynamics_every is not None:
            changes.append(f"dynamics.every_steps={options.dynamics_every}")
        config = load_config(TrainConfig, demo, changes)
        collection = open_collection(config.data)
        run = build_run(config, collection, comm, torch.device("cpu"))
        lock = run_lock(config.run_dir)
        life, _ = on_first(comm, lambda: open_run(config, collection, comm.size, comm.name, lock))
        resume(run)
        trainer = Trainer(run, plan_of(run), life, StopSignals())
        run.model.train()
        with Loader(collection, trainer.plan, cursor_of(run), config.steps, division_of(run), cost_of(run)) as loader:
            works = list(islice(loader, options.log_every))
        records = trainer.records
        measure(trainer, works, options.seconds)
        records.close()
        comm.barrier()
        comm.close()
        lock.release()


if __name__ == "__main__":
    main()
