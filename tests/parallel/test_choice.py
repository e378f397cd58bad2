"""`parallel.backend: auto` by what was measured."""

import os
import sys
from importlib.metadata import version

import pytest
from ranks import mpirun, run_command

from matsci_hpc.doctor.surroundings import host_name
from matsci_hpc.parallel.choice import Choice, Situation, choose
from matsci_hpc.parallel.measurements import Key, Measurement, Point, keep_measurement

HERE = Situation(device="cpu", ranks=4, nodes=2, host="cluster", torch="2.8", launcher="srun")
PROGRAM = """\
import os
from matsci_hpc.config.train import Parallel
from matsci_hpc.parallel.communicator import open_communicator
comm = open_communicator(Parallel())
names = comm.broadcast_object(comm.name)
assert names == comm.name
comm.close()
os.write(1, f"joined by {comm.name}\\n".encode())  # in one piece, which a print is not
"""


def measured(backend, latency_s, bandwidth, operations=None, **other):
    key = {
        "ranks": 4,
        "nodes": 2,
        "ranks_per_node": 2,
        "device": "cpu",
        "host": "cluster",
        "fabric": "TCP",
        "versions": {"torch": "2.8", "mpi": "any"},
    } | other
    points = [Point(bytes=size, time_s=1, low_s=1, high_s=1, repeats=3) for size in (4, 8)]
    return Measurement(
        key=Key(backend=backend, operations=operations, **key),
        date="2026-01-01T00:00:00+00:00",
        small_s=latency_s,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth,
        points=tuple(points),
    )


GLOO, MPI = measured("gloo", 1e-3, 2e9), measured("mpi", 1e-4, 1e9)
HOROVOD = measured("horovod", 5e-5, 1e9, "ccl")


@pytest.mark.parametrize(
    ("message_bytes", "found", "unusable", "expected"),
    [
        (1e5, [], (), ("gloo", None)),
        (1e5, [GLOO, MPI], (), ("mpi", None)),  # latency decides on small messages
        (1e8, [GLOO, MPI], (), ("gloo", None)),  # bandwidth on large ones
        (1.8e6, [GLOO, MPI], (), ("gloo", None)),  # 1.9 ms both: not worth it
        (1e5, [MPI], (), ("gloo", None)),  # nothing to compare with
        (1e5, [GLOO, MPI, HOROVOD], (), ("horovod", "ccl")),
        (1e5, [GLOO, MPI, HOROVOD], ("horovod",), ("mpi", None)),
        (1e5, [GLOO, MPI, measured("mpi", 1e-2, 1e9)], (), ("gloo", None)),  # the newer one counts
        (1e5, [GLOO, measured("mpi", 1e-4, 1e9, ranks=8)], (), ("gloo", None)),
        (1e5, [GLOO, measured("mpi", 1e-4, 1e9, nodes=1)], (), ("gloo", None)),
        (1e5, [GLOO, measured("mpi", 1e-4, 1e9, host="other")], (), ("gloo", None)),
        (1e5, [GLOO, measured("mpi", 1e-4, 1e9, device="cuda")], (), ("gloo", None)),
        (1e5, [GLOO, measured("mpi", 1e-4, 1e9, versions={"torch": "2.7"})], (), ("gloo", None)),
    ],
)
def test_the_fastest_that_was_measured_here(message_bytes, found, unusable, expected):
    chosen = choose(HERE, message_bytes, found, "gloo", lambda name: name not in unusable)
    assert (chosen.backend, chosen.operations) == expected
    assert (chosen.reason is None) == (expected == ("gloo", None))


def test_where_mpi_does_not_know_the_ranks_it_is_not_taken():
    by_torchrun = Situation("cpu", 4, 2, "cluster", "2.8", "torchrun")
    assert choose(by_torchrun, 1e5, [GLOO, MPI, HOROVOD], "gloo", lambda _: True) == Choice("gloo")


@pytest.mark.mpi
@pytest.mark.parametrize(("faster", "expected"), [("mpi", "mpi"), ("gloo", "gloo"), (None, "gloo")])
def test_real_ranks_agree_on_it(tmp_path, faster, expected):
    path = tmp_path / "communication.json"
    path.write_text("damaged")
    here = {
        "ranks": 2,
        "nodes": 1,
        "host": host_name({"SLURM_CLUSTER_NAME": ""} | dict(os.environ)),
        "versions": {"torch": version("torch")},
    }
    if faster is not None:
        for name in ("gloo", "mpi"):
            keep_measurement(path, measured(name, 1e-4 if name == faster else 1e-2, 1e9, **here))
    result = run_command(mpirun(2, sys.executable, "-c", PROGRAM), MATSCI_HPC_MEASUREMENTS=str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(f"joined by {expected}\n") == 2
    assert ("an all-reduce of 1 MB over 2 ranks was measured to take" in result.stdout) == (expected == "mpi")
    assert ("measurements are left out" in result.stderr) == (faster is None)
