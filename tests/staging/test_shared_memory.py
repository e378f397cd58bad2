"""One copy of the shards in the memory of a node."""

import copy as copying
import pickle
import sys

import numpy as np
import pytest
import torch
from ranks import mpirun, run_command

from matsci_hpc.errors import MachineError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.shards.reader import DataSet
from matsci_hpc.staging.shared import NodeMemory, SharedShards

ONE_COPY = """
import sys
import numpy as np
from mpi4py import MPI
from matsci_hpc.staging.shared import NodeMemory, open_mpi

def kilobytes(address, what):
    with open("/proc/self/smaps") as file:
        inside = False
        for line in file:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                start, stop = (int(each, 16) for each in words[0].split("-"))
                inside = start <= address < stop
            elif inside and words[0] == what + ":":
                return int(words[1])

comm = MPI.COMM_WORLD
memory = NodeMemory(open_mpi(comm.Get_size()))
array = memory.allocate(48_000_000)
mine = slice(memory.rank * 16_000_000, (memory.rank + 1) * 16_000_000)
array[mine] = memory.rank + 1
memory.publish()
assert int(array.sum(dtype=np.int64)) == 16_000_000 * (1 + 2 + 3)
comm.Barrier()
address = array.ctypes.data
sizes = comm.gather((kilobytes(address, "Rss"), kilobytes(address, "Pss")))
comm.Barrier()
memory.free()
if comm.Get_rank() == 0:
    print(sum(rss for rss, _ in sizes), sum(pss for _, pss in sizes))
"""


@pytest.mark.mpi
def test_one_copy_for_all_ranks_of_the_node():
    result = run_command(mpirun(3, sys.executable, "-c", ONE_COPY), timeout_s=60)
    assert result.returncode == 0, result.stderr
    resident_kb, proportional_kb = map(int, result.stdout.split())
    assert resident_kb >= 3 * 46_875  # each of three ranks sees all 48,000,000 bytes,
    assert 46_875 <= proportional_kb <= 1.05 * 46_875  # and together they hold them once


def in_memory(folder):
    shards = SharedShards([(folder, read_manifest(folder))])
    memory = NodeMemory(None)
    array = memory.allocate(shards.bytes)
    assert sum(shards.load(array, 0, 1)) == sum(shard.bytes for shard in read_manifest(folder).shards)
    (place,) = shards.places(array)
    return place


def test_batches_from_memory_are_the_same(crystals):
    samples = np.array([0, 3, 17, 40, 59])
    shared = collate(Collection([crystals], [in_memory(crystals)]), samples)
    plain = collate(Collection([crystals]), samples)
    for name in ("position", "atomic_number", "sender", "receiver", "edge_pointer", "sample"):
        assert torch.equal(getattr(shared, name), getattr(plain, name))


def test_arrays_are_those_of_the_files_and_read_only(crystals):
    shared, plain = DataSet(crystals, place=in_memory(crystals)), DataSet(crystals)
    for number in range(len(plain.manifest.shards)):
        assert shared.shard(number).keys() == plain.shard(number).keys()
        for name, array in plain.shard(number).items():
            np.testing.assert_array_equal(shared.shard(number)[name], array, strict=True)
            assert not shared.shard(number)[name].flags.writeable


def test_ranks_load_each_shard_once(crystals):
    shards = SharedShards([(crystals, read_manifest(crystals))])
    array, whole = np.zeros((2, shards.bytes), dtype=np.uint8)
    for rank in range(3):
        list(shards.load(array, rank, 3))
    list(shards.load(whole, 0, 1))
    np.testing.assert_array_equal(array, whole)


def test_memory_does_not_travel_to_other_processes(crystals):
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        pickle.dumps(in_memory(crystals))


def test_damage_in_memory_is_named(crystals):
    place = in_memory(crystals)
    images = {name: copying.copy(image) for name, image in place._images.items()}
    record = read_manifest(crystals).shards[0]
    images[record.file][:64] = 0
    place._images = images
    with pytest.raises(MachineError, match=r"shard-00000\.h5: damaged in memory"):
        place.arrays(record)
