"""Every backend that can be used here does the same, on real ranks."""

import json
import sys

import pytest
from ranks import mpirun, run_command

from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.backends import BACKENDS, open_backend, usable

USABLE = [name for name in BACKENDS if usable(name) is None]
PROGRAM = """\
import json, sys
import torch
from matsci_hpc.config.train import Parallel
from matsci_hpc.parallel.communicator import open_communicator
comm = open_communicator(Parallel(backend=sys.argv[1]))
mine = comm.rank + 1
said = {"name": comm.name, "rank": comm.rank, "size": comm.size}
for dtype in (torch.float64, torch.float32, torch.int64):
    for operation in ("sum", "max", "min"):
        tensor = torch.tensor([mine, -mine], dtype=dtype)
        comm.all_reduce(tensor, operation)
        said[f"{operation} {dtype}"] = tensor.tolist()
for dtype in (torch.bfloat16, torch.float16):
    tensor = torch.full((5,), 0.5 * mine, dtype=dtype)
    comm.all_reduce(tensor)
    said[f"sum {dtype}"] = sorted(set(tensor.tolist()))
scalar = torch.tensor(float(mine))
comm.all_reduce(scalar)
said["scalar"] = scalar.item()
# Several at once, of unequal size, waited for in another order than they were started.
parts = [torch.full((count,), mine * 1.0, dtype=torch.float64) for count in (1, 100_000, 0, 7)]
pending = [comm.all_reduce_start(part) for part in parts]
for each in reversed(pending):
    each.wait()
said["parts"] = [sorted(set(part.tolist())) for part in parts]
said["ended"] = all(each.ended_s > 0 for each in pending)
said["gathered"] = comm.all_gather(torch.tensor([[mine, 0]], dtype=torch.int32)).tolist()
said["flags"] = comm.all_gather(torch.tensor(mine == 1, dtype=torch.uint8)).tolist()
row = torch.tensor([mine, 2.5])
comm.broadcast(row)
said["row"] = row.tolist()
said["object"] = comm.broadcast_object({"a": ["\\u00e5", None]} if comm.rank == 0 else None)
comm.barrier()
comm.close()
sys.stdout.write(json.dumps(said) + "\\n")  # in one piece, as launchers mix what ranks say
"""


def assert_said(stdout, name, ranks):
    said = sorted(
        (json.loads(line) for line in stdout.splitlines() if line.startswith("{")), key=lambda each: each["rank"]
    )
    total = sum(range(1, ranks + 1))
    expected = {"name": name, "size": ranks, "scalar": total, "parts": [[total], [total], [], [total]], "ended": True}
    for dtype in ("torch.float64", "torch.float32", "torch.int64"):
        expected |= {
            f"sum {dtype}": [total, -total],
            f"max {dtype}": [ranks, -1],
            f"min {dtype}": [1, -ranks],
        }
    expected |= {f"sum {dtype}": [0.5 * total] for dtype in ("torch.bfloat16", "torch.float16")}
    expected |= {
        "gathered": [[[rank + 1, 0]] for rank in range(ranks)],
        "flags": [1] + [0] * (ranks - 1),
        "row": [1, 2.5],
        "object": {"a": ["å", None]},
    }
    assert said == [expected | {"rank": rank} for rank in range(ranks)]


@pytest.mark.mpi
@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_a_backend_does(name, ranks):
    result = run_command(mpirun(ranks, sys.executable, "-c", PROGRAM, name), timeout_s=100)
    assert result.returncode == 0, result.stderr
    assert_said(result.stdout, name, ranks)


def test_a_backend_that_there_is_not():
    with pytest.raises(UserInputError, match=r"there is no 'carrier pigeon'; there are: none, gloo"):
        open_backend("carrier pigeon", None)
