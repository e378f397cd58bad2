"""Memory of a rank in training: what `matsci-hpc check` expects against what real runs come to.

    python benchmarks/memory.py DATA_SET [--graphs 8 32 128] [--steps 600] [--width 32] [--layers 4]

For each batch, a run of one rank in a process of its own with the environment of a job; its largest private memory
comes from its own metrics. `tensors` is what the check counts for the largest step, `excess` what the process took
beyond the program and the fixed part, as a multiple of it: the allocator's share.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from matsci_hpc.launch.environment import rank_environment
from matsci_hpc.preflight.measured import Trial
from matsci_hpc.preflight.memory import expected_bytes, least_bytes

MB = 1e6
CONFIG = """\
run_dir: {run_dir}
data: {{train: [{data}]}}
steps: {steps}
batch: {{graphs: {graphs}}}
model: {{layers: {layers}, width: {width}, message_width: {width}, position_width: {width}}}
evaluate: {{every_steps: {half}}}
checkpoint: {{every_steps: {half}}}
log_every: {log_every}
"""


@dataclass(frozen=True)
class Outcome:
    """Private memory of a real run in the course of its steps, and its step time."""

    memory_bytes: list[int]
    step_s: float


def run(module: list[str], folder: Path) -> str:
    """Run a part of the program as one rank and return what it printed."""
    environment = {**os.environ, **rank_environment(threads=1)}
    done = subprocess.run(
        [sys.executable, "-m", *module], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{module}: {done.stderr}")
    return done.stdout


def train(config: Path, run_dir: Path, folder: Path) -> Outcome:
    """Train to the end."""
    run(["matsci_hpc", "train", str(config)], folder)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    times = [line["step_time_s"] for line in lines[1:]]
    return Outcome([line["memory_bytes"] for line in lines], sum(times) / len(times))


def main() -> None:
    """Read the options and print a row for each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument("--graphs", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    columns = ("graphs", "program", "fixed", "tensors", "at 1/4", "real", "excess", "expected", "expected/real")
    print("".join(f"{name:>14}" for name in columns), "   MB")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        for graphs in options.graphs:
            run_dir, config = folder / f"run-{graphs}", folder / f"{graphs}.yaml"
            text = CONFIG.format(
                run_dir=run_dir,
                data=options.data.resolve(),
                steps=options.steps,
                half=max(1, options.steps // 2),
                log_every=max(1, options.steps // 40),
                graphs=graphs,
                width=options.width,
                layers=options.layers,
            )
            config.write_text(text)
            trial = Trial(**json.loads(run(["matsci_hpc.preflight.trial", str(config), "1", "8"], folder)))
            real = train(config, run_dir, folder)
            most, early = max(real.memory_bytes), real.memory_bytes[len(real.memory_bytes) // 4]
            excess = (most - trial.program_bytes - trial.fixed_bytes) / trial.work_bytes
            sizes = (trial.program_bytes, trial.fixed_bytes, trial.work_bytes, early, most)
            row = [f"{graphs:>14}", *(f"{each / MB:>14,.0f}" for each in sizes), f"{excess:>14.1f}"]
            row += [f"{expected_bytes(trial) / MB:>14,.0f}", f"{expected_bytes(trial) / most:>14.2f}"]
            print("".join(row), f"   (at least {least_bytes(trial) / MB:,.0f})", flush=True)


if __name__ == "__main__":
    main()
