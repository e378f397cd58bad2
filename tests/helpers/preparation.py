"""What tests of preparation share: real commands, real ranks, and data sets as bytes."""

import sys

import ranks

PROGRAM = [sys.executable, "-m", "matsci_hpc"]
ENVIRONMENT = ranks.environment()


def run_program(*args, environment=None, cwd=None, timeout=120):
    """`matsci-hpc ARGS` as one process without a launcher."""
    return ranks.run_command([*PROGRAM, *map(str, args)], timeout_s=timeout, cwd=cwd, **(environment or {}))


def run_on_ranks(number, args, timeout=120):
    """A Python program, such as `["-m", "matsci_hpc", ...]`, on real MPI ranks."""
    return ranks.run_command(ranks.mpirun(number, sys.executable, *args), timeout_s=timeout)


def data_set(folder):
    """Every file of a data set by name, but the one that may differ."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }
