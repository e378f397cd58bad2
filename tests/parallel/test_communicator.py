"""What goes through the door to the network, on real ranks."""

import json
import sys

import pytest
from ranks import mpirun, run_command

PROGRAM = """\
import json, os
from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import MatsciError, MachineError
from matsci_hpc.parallel.communicator import open_communicator
from matsci_hpc.parallel.together import on_first
comm = open_communicator(Parallel())
value = {"text": "\\u00e5ngstr\\u00f6m \\U0001f680", "list": [1, 2.5, None, True], "long": "x" * 100_000}
same = comm.broadcast_object(value if comm.rank == 0 else object()) == value
empty = comm.broadcast_object([] if comm.rank == 0 else None)
def fails():
    raise MachineError("the disk is full")
try:
    on_first(comm, fails)
    failure = None
except MatsciError as error:
    failure = [type(error).__name__, str(error)]
os.write(1, f"{json.dumps([comm.rank, same, empty, failure])}\\n".encode())  # in one piece, which a print is not
comm.barrier()
comm.close()
"""


@pytest.mark.mpi
def test_plain_values_and_failures_of_rank_0_reach_every_rank():
    result = run_command(mpirun(3, sys.executable, "-c", PROGRAM))
    assert result.returncode == 0, result.stderr
    said = sorted(json.loads(line) for line in result.stdout.splitlines())
    assert said == [[rank, True, [], ["JobError", "the disk is full"]] for rank in range(3)]
