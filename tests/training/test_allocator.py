import subprocess
import sys

import pytest
from ranks import environment

from matsci_hpc.launch.environment import rank_environment

# Pages that are fetched from the kernel in twenty turns of a block above glibc's 32 MiB.
FAULTS = """
import resource
from matsci_hpc.training.allocator import keep_freed_memory
if {call}:
    assert keep_freed_memory()
def turn():
    return len(b"x" * 48_000_000)
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, call=False, **variables):
    around = {name: value for name, value in environment().items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)],
        env=around | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("how", ["call", "environment"])
def test_freed_memory_stays(how):
    kept = faults(call=True) if how == "call" else faults(**rank_environment())
    assert kept < faults() / 5


def test_the_environment_wins():
    assert faults(call=True, MALLOC_MMAP_MAX_="65536", MALLOC_MMAP_THRESHOLD_="131072") > 1000
