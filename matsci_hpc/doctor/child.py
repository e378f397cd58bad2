"""Risky things are tried in a process of their own, which may die, hang or take the terminal along."""

import os
import subprocess
import sys
from collections.abc import Sequence

from matsci_hpc.launch.script_desk import outside_of_jobs
from matsci_hpc.preflight.measured import is_launchers

TIMEOUT_S = 120.0


class ChildError(Exception):
    """What befell a child, in one line."""


def run_child(words: Sequence[str], timeout_s: float = TIMEOUT_S) -> str:
    """Run a program outside of the job that this process may be a rank of, and give what it printed.

    Raises:
        ChildError: it could not be started, failed, was killed or took too long.
    """
    # A child that inherits a rank's variables would join that rank's MPI.
    environment = {name: value for name, value in outside_of_jobs().items() if not is_launchers(name)}
    if os.geteuid() == 0:  # containers often have no other user, and Open MPI refuses it unless told
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - programs of this package's choice
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"took more than {timeout_s:.0f} s") from None
    except OSError as error:
        raise ChildError(f"does not start: {error.strerror or error}") from None
    if done.returncode != 0:
        raise ChildError(_reason(done))
    return done.stdout


def run_python(code: str, timeout_s: float = TIMEOUT_S) -> str:
    """The same for a few lines of Python in the interpreter of this process."""
    return run_child([sys.executable, "-c", code], timeout_s)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that says something."""
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    last = said[-1][:200] if said else "said nothing"
    if done.returncode < 0:
        return f"was killed by signal {-done.returncode}: {last}"
    return last
