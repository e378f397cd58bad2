"""Jobs on this machine, without a scheduler."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from matsci_hpc.cores import memory_domains, ranks_per_domain
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.chain import Link
from matsci_hpc.launch.environment import rank_environment
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.launcher import launcher_here, missing_here
from matsci_hpc.launch.sites.model import Site


@dataclass(frozen=True)
class LocalCommand:
    """A command and what it needs in its environment beside what is there."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    gentle_signal: signal.Signals | None = None
    """What a first SIGINT or SIGTERM becomes on the way to the command, so that it can save first."""
    stop_file: Path | None = None
    """What a first SIGINT or SIGTERM creates instead, where the launcher hands on no signal."""

    def __str__(self) -> str:
        """As a line that a shell takes."""
        variables = (f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return " ".join([*variables, shlex.join(self.argv)])


def run_chain_here(chain: Sequence[Link], site: Site, *, dry_run: bool) -> int:
    """Run jobs one after the other; those behind one that failed or was stopped do not begin.

    Returns:
        The exit code of the last job that ran.

    Raises:
        MachineError: Several ranks, and no launcher to start them.
        UserInputError: Preparation by a launcher that brings no MPI.
    """
    commands = [local_command(link.job, site) for link in chain]
    if dry_run:
        print("\n".join(map(str, commands)))
        return 0
    for number, (link, command) in enumerate(zip(chain, commands, strict=True)):
        code = run_local(command)
        left = len(chain) - number - 1
        if left and (code != 0 or not link.job.marker.exists()):
            how = f"failed with exit code {code}" if code else "is not complete"
            print(f"{link.job.name} {how}; not begun: {', '.join(each.job.name for each in chain[-left:])}", flush=True)
            return code
        if code != 0:
            return code
    return 0


def local_command(job: Job, site: Site) -> LocalCommand:
    """The command line that runs a job here; one rank needs no launcher.

    Raises:
        MachineError: Several ranks, and no launcher to start them.
        UserInputError: Preparation by a launcher that brings no MPI.
    """
    cores = len(os.sched_getaffinity(0))
    # Threads of all ranks together must not outnumber the cores: two OpenMP pools on one core crawl.
    environment = rank_environment(max(1, cores // job.ranks), os.environ | site.environment)
    if job.verb == "report":
        return LocalCommand((str(job.python), "-m", "matsci_hpc", "report", str(job.output)), environment)
    words = shlex.split(site.launcher or "mpirun") + site.binding
    if job.ranks > 1 and words[0].rpartition("/")[2] == "torchrun":
        if job.verb == "prep":
            raise UserInputError(
                "preparation shares its work by MPI: use a site whose launcher is mpirun, or --ranks 1"
            )
        argv = (*_torchrun(job, words[1:]), *job.arguments)
        return LocalCommand(argv, environment | site.environment, stop_file=job.output / "STOP")
    argv = job.command
    if job.ranks > 1:
        launcher = _find_launcher(words[0])
        words = [launcher, *words[1:], "-n", str(job.ranks)]
        version = _version(launcher)
        if "Intel" in version and "I_MPI_FABRICS" not in os.environ:
            # All ranks are on this machine, which may have no network that libfabric knows.
            environment["I_MPI_FABRICS"] = "shm"
        if "Open MPI" in version:
            words += placement(job.ranks, memory_domains(), os.sched_getaffinity(0))
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


def placement(ranks: int, domains: dict[int, frozenset[int]], cores: set[int]) -> list[str]:
    """Options of Open MPI that say where ranks belong: each in a memory domain where these can be shared evenly.

    Open MPI by itself refuses more ranks than cores, and binds each of two ranks to a single core.
    """
    if (each := ranks_per_domain(ranks, cores, domains)) is None:
        return ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    return ["--map-by", f"ppr:{each}:numa:OVERSUBSCRIBE", "--bind-to", "numa"]


def _torchrun(job: Job, options: Sequence[str]) -> tuple[str, ...]:
    """Torch's own launcher, of the environment that matsci-hpc runs in; one rank that fails ends the run."""
    return (
        *(str(job.python), "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.ranks}"),
        *("--max-restarts=0", *options, "-m", "matsci_hpc"),
    )


def run_local(command: LocalCommand, log: Path | None = None) -> int:
    """Run a command to its end and return its exit code.

    SIGINT and SIGTERM are passed on. Training takes the first as a wish to save and stop; the next end it.

    Args:
        command: what is run.
        log: file that its output is added to; left out, it goes where ours goes.
    """
    with log.open("ab") if log is not None else nullcontext() as output:
        return _run(command, output)


def _run(command: LocalCommand, output: IO[bytes] | None) -> int:
    # A session of its own: Ctrl-C in a terminal reaches a whole group, and mpirun would see it twice, once
    # from the terminal and once from here, and kill the ranks before they have saved.
    child = subprocess.Popen(  # noqa: S603 - the user's own command
        command.argv,
        env=os.environ | dict(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )

    gentle = command.gentle_signal is not None or command.stop_file is not None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal gentle
        if gentle:
            print("saving a checkpoint and stopping; the same again ends it at once", file=sys.stderr, flush=True)
        if gentle and command.stop_file is not None:
            command.stop_file.touch()
        else:
            child.send_signal(command.gentle_signal if gentle and command.gentle_signal else number)
        gentle = False

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status  # as a shell reports a death by signal


def _find_launcher(name: str) -> str:
    """The launcher of the environment that matsci-hpc runs in, else the one on PATH."""
    found = launcher_here(name)
    if found is None:
        what, advice = missing_here(name)
        raise MachineError(f"several ranks need a launcher, and {what}: {advice}")
    return found


def _version(launcher: str) -> str:
    """Whose launcher it is: each MPI has options of its own."""
    try:
        answer = subprocess.run(  # noqa: S603 - the launcher that is about to be run anyway
            [launcher, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{launcher} does not run: {error}") from error
    return answer.stdout + answer.stderr
