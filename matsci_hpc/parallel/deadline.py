"""Time limits where no watchdog watches: before the ranks have met, and after they have parted."""

import faulthandler
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from matsci_hpc.errors import MachineError

GRACE_S = 5.0
"""Time that Python gets to speak for itself before the process is ended from outside of it."""


@contextmanager
def meeting_within(limit_s: float, rank: int) -> Iterator[None]:
    """End this process if what is inside takes longer: some rank did not come, and nobody can tell yet which one.

    Loading MPI waits for all ranks and holds Python's lock meanwhile. So a timer of C stands behind that of Python.

    Args:
        limit_s: most time, in seconds.
        rank: of this process.
    """
    text = (
        f"matsci-hpc: error: rank {rank} on {socket.gethostname()} (process {os.getpid()}) has waited {limit_s:g} s to "
        "meet all others: at least one has not come; look at its node, or raise parallel.startup_timeout_s\n"
    )

    def end() -> None:
        os.write(2, text.encode())
        os._exit(MachineError.exit_code)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True)
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


def leave_within(limit_s: float) -> None:
    """End this process by SIGALRM if it is still there after so many seconds.

    On its way out MPI waits for all ranks, when there is no Python left that could look at a clock.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(limit_s))
