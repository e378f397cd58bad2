"""What goes through the door to the network, on real ranks."""

import json
import socket
import subprocess
import sys

import pytest
from ranks import environment, mpirun, run_command

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


LEAVES = """\
import os, time
from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import MatsciError
from matsci_hpc.parallel import watched
from matsci_hpc.parallel.communicator import open_communicator
if os.environ["RANK"] == "0":
    def leave(store, *_, **__):
        while not store.check(["here"]):
            time.sleep(0.05)
        os._exit(0)
    watched._meet_at = leave
else:
    meet = watched._meet_at
    def tell(store, *arguments, **options):
        store.set("here", "")
        return meet(store, *arguments, **options)
    watched._meet_at = tell
try:
    open_communicator(Parallel(startup_timeout_s=60))
except MatsciError as error:
    print(error)
"""


def test_a_rank_that_leaves_while_the_others_look_for_it_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
        environ = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), **place)
        words = [sys.executable, "-c", LEAVES]
        ranks.append(subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said, errors = ranks[1].communicate(timeout=100)
    ranks[0].communicate(timeout=10)
    assert "rank 1 on " in said, said + errors
    assert "lost rank 0 while the ranks met (" in said
    assert said.endswith("); its own output says why\n")
