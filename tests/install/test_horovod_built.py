"""What the recipe has built, on real ranks."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from ranks import run_command

pytestmark = [
    pytest.mark.horovod,
    pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="no Horovod here: make test-horovod"),
]
PROGRAM = """\
import os
import horovod.torch as hvd, torch
hvd.init()
total = hvd.allreduce(torch.arange(3.0, dtype=torch.float64) + hvd.rank(), op=hvd.Sum, name="total")
# In one write: a print of several words may be mixed with that of the other rank.
os.write(1, f"sum {total.tolist()} {hvd.size()} {hvd.mpi_built()} {bool(hvd.ccl_built())}\\n".encode())
hvd.shutdown()
"""


def test_the_build_sums_over_ranks_with_the_libraries_of_its_environment():
    mpiexec = Path(sys.executable).parent / "mpiexec"
    words = [str(mpiexec), "-n", "2", sys.executable, "-c", PROGRAM]
    # Libraries of some other MPI on the path must not be taken for those of the environment.
    misleading = str(Path(sys.prefix) / "lib" / "no_such_folder")
    result = run_command(
        words, I_MPI_FABRICS="shm", I_MPI_ROOT=sys.prefix, LD_LIBRARY_PATH=misleading, PATH=os.environ["PATH"]
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("sum [1.0, 3.0, 5.0] 2 True True") == 2
