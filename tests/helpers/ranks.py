"""Start the program as real MPI ranks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MPIRUN = Path(sys.executable).parent / "mpirun"
INTEL = Path(sys.executable).parent / "mpiexec.hydra"


def environment(**extra: str) -> dict[str, str]:
    """The environment of a child: this source tree first, one thread, and no launcher around the tests."""
    launchers = ("SLURM_", "OMPI_", "PMI", "PALS_", "TORCHELASTIC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_osc": "^ucx",
        "I_MPI_FABRICS": "shm",
        "MATSCI_HPC_MEASUREMENTS": str(ROOT / "no-measurements.json"),  # those of this account must not choose
        **extra,
    }


def mpirun(ranks: int, *program: object) -> list[str]:
    """The command that starts a program on so many ranks."""
    options = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"] if not INTEL.exists() else []
    return [str(INTEL if INTEL.exists() else MPIRUN), "-n", str(ranks), *options, *map(str, program)]


def command(ranks: int, *arguments: object) -> list[str]:
    """`matsci-hpc ARGUMENTS` on so many ranks; one needs no launcher."""
    program = [sys.executable, "-m", "matsci_hpc", *map(str, arguments)]
    return program if ranks == 1 else mpirun(ranks, *program)


def run_command(
    words: list[str], *, timeout_s: float = 300, cwd: Path | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it says; the caller looks at the exit code."""
    return subprocess.run(
        words, env=environment(**extra), cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def run_ranks(ranks: int, *arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """`matsci-hpc ARGUMENTS` on so many ranks, to its end."""
    return run_command(command(ranks, *arguments), **extra)


def trainer(config: Path) -> Callable[..., Path]:
    """Trains by a config on real ranks: trainer(config)(folder, ranks, overrides...) gives the folder."""

    def run(folder: Path, ranks: int, *overrides: str) -> Path:
        result = run_ranks(ranks, "train", config, f"run_dir={folder}", *overrides)
        assert result.returncode == 0, result.stdout + result.stderr
        return folder

    return run
