"""What Horovod does, by MPI and by oneCCL, is what every backend does."""

import importlib.util
import sys

import pytest
from ranks import mpirun, run_command
from test_backends import PROGRAM, assert_said

pytestmark = [
    pytest.mark.horovod,
    pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="no Horovod here: make test-horovod"),
]


@pytest.mark.parametrize("operations", ["MPI", "CCL"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_it_does(operations, ranks):
    command = mpirun(ranks, sys.executable, "-c", PROGRAM, "horovod")
    result = run_command(command, timeout_s=100, HOROVOD_CPU_OPERATIONS=operations)
    assert result.returncode == 0, result.stderr
    assert_said(result.stdout, "horovod", ranks)
