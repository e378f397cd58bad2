"""Ranks agree on who adds up over edges, whatever devices they compute on."""

import json
import sys

import pytest
from ranks import mpirun, run_command

pytestmark = pytest.mark.mpi
KERNELS = """\
import json, os, sys
from types import SimpleNamespace
import torch
from matsci_hpc.config.train import Parallel
from matsci_hpc.parallel.communicator import open_communicator
from matsci_hpc.training import kernels
comm = open_communicator(Parallel())
kernels.usable_kernels = lambda: ("scatter", "segment")
kernels._fastest = lambda run: "scatter"  # as measured, on a GPU that this test does not have
device = torch.device(sys.argv[1].split()[comm.rank])
run = SimpleNamespace(
    comm=comm, device=device, config=SimpleNamespace(kernels="auto"), state=SimpleNamespace(kernel=sys.argv[2] or None)
)
kernels.decide_kernel(run)
os.write(1, f"{json.dumps([comm.rank, run.state.kernel])}\\n".encode())
comm.barrier()
comm.close()
"""


@pytest.mark.parametrize(
    ("devices", "kept", "chosen"),
    [
        ("cpu cpu", "", None),
        ("cuda cpu", "", "scatter"),
        ("cpu cuda", "", "segment"),
        ("cpu cuda", "scatter", "scatter"),
        ("cuda cuda", "triton", "scatter"),
    ],
)
def test_ranks_on_devices_of_several_kinds_agree_on_a_kernel(devices, kept, chosen):
    result = run_command(mpirun(2, sys.executable, "-c", KERNELS, devices, kept), timeout_s=100)
    assert result.returncode == 0, result.stderr
    said = sorted(json.loads(line) for line in result.stdout.splitlines() if line.startswith("["))
    assert said == [[0, chosen], [1, chosen]]
