"""What ranks find out of each other before they are joined, on real ranks."""

import json
import socket
import sys

import pytest
from ranks import mpirun, run_command

pytestmark = pytest.mark.mpi
PROGRAM = """\
import json, os, sys
import torch
from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import MachineError, MatsciError, UserInputError
from matsci_hpc.parallel.communicator import open_communicator
rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")))
device, reason, by_user = json.loads(sys.argv[1])[rank]
refusal = (UserInputError if by_user else MachineError)(reason) if reason else None
try:
    comm = open_communicator(Parallel(backend=sys.argv[2]), device=device, refusal=refusal)
    total = torch.ones(2)
    comm.all_reduce(total)
    found = [comm.name, total.tolist()]
    comm.close()
except MatsciError as error:
    found = [type(error).__name__, str(error)]
os.write(1, f"{json.dumps([rank, *found])}\\n".encode())
"""
WELL = ["cpu", None, False]
BROKEN = ["cpu", "its GPU is broken", False]


def outcome(places, backend="auto"):
    result = run_command(mpirun(len(places), sys.executable, "-c", PROGRAM, json.dumps(places), backend))
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    said = sorted(json.loads(line) for line in lines if line.startswith("["))
    assert [rank for rank, *_ in said] == list(range(len(places))), result.stderr
    return [found for _, *found in said], [line for line in lines if not line.startswith("[")]


def test_ranks_that_all_are_well_are_joined():
    assert outcome([WELL, WELL, WELL]) == ([["gloo", [3.0, 3.0]]] * 3, [])


def test_devices_of_several_kinds_are_joined_by_gloo_and_told():
    found, said = outcome([["cuda", None, False], WELL, ["cuda", None, False]])
    assert found == [["gloo", [3.0, 3.0]]] * 3
    assert len(said) == 1
    assert "ranks compute on devices of several kinds: 2 on cuda (rank " in said[0]
    assert f"1 on cpu (rank 1 on {socket.gethostname()}); gloo joins them" in said[0]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_cannot_go_on_is_named_by_all(rank):
    places = [WELL, WELL, WELL]
    places[rank] = BROKEN
    reason = f"rank {rank} on {socket.gethostname()}: its GPU is broken"
    assert outcome(places)[0] == [["JobError", reason]] * 3


def test_what_all_lack_is_said_without_a_name_and_a_user_is_told_as_a_user():
    wrong = ["cpu", "ask for a processor", True]
    assert outcome([wrong, wrong])[0] == [["UserInputError", "ask for a processor"]] * 2


def test_a_backend_that_is_missing_is_told_once_all_have_met():
    found, _ = outcome([WELL, WELL], "nccl")
    assert {kind for kind, _ in found} == {"JobError"}
    assert len({text for _, text in found}) == 1
    assert found[0][1].startswith("parallel.backend: nccl cannot be used here: ")
