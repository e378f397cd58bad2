"""Copies on a disk of the node: whole or not there, whoever dies and whoever else copies."""

import fcntl
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from ranks import environment, run_command

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.loading.collate import collate
from matsci_hpc.loading.collection import Collection
from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.staging.local import check_copy, copy_data_sets, place_of_copy, staging_root

SETUP = """
import os, signal, sys
from pathlib import Path
from matsci_hpc.shards.manifest import read_manifest
from matsci_hpc.staging import verified
from matsci_hpc.staging.local import copy_data_sets
verified.PIECE_BYTES = 512
folder, root = Path(sys.argv[1]), Path(sys.argv[2])
copying = copy_data_sets([(folder, read_manifest(folder))], root)
"""


def copy(folder, root):
    """Copy a data set; gives the folder of the copy and the bytes dealt with."""
    dealt = sum(copy_data_sets([(folder, read_manifest(folder))], root))
    return place_of_copy(root, folder), dealt


def assert_whole(folder, target):
    manifest = read_manifest(folder)
    for name in ("dataset.json", "index.h5", *(shard.file for shard in manifest.shards)):
        assert (target / name).read_bytes() == (folder / name).read_bytes()
    assert not list(target.glob("*.part"))
    check_copy(target, manifest)


def stamps(target):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in target.glob("*.h5")}


def test_batches_from_the_copy_are_the_same(crystals, tmp_path):
    target, dealt = copy(crystals, tmp_path / "disk")
    assert_whole(crystals, target)
    manifest = read_manifest(crystals)
    assert dealt == manifest.index.bytes + sum(shard.bytes for shard in manifest.shards)
    samples = np.array([0, 3, 17, 40, 59])
    staged, plain = collate(Collection([crystals], [target]), samples), collate(Collection([crystals]), samples)
    for name in ("position", "atomic_number", "sender", "receiver", "edge_pointer", "sample"):
        assert torch.equal(getattr(staged, name), getattr(plain, name))
    assert Collection([crystals], [target]).datasets[0].folder == crystals


def test_a_whole_copy_is_used_again(crystals, tmp_path):
    target, _ = copy(crystals, tmp_path)
    before = stamps(target)
    assert copy(crystals, tmp_path)[0] == target
    assert stamps(target) == before


def test_a_damaged_copy_is_made_again(crystals, tmp_path):
    target, _ = copy(crystals, tmp_path)
    before = stamps(target)
    damaged = bytearray((target / "shard-00001.h5").read_bytes())
    damaged[-1] ^= 1
    (target / "shard-00001.h5").write_bytes(damaged)
    (target / "shard-00002.h5").write_bytes(b"short")
    copy(crystals, tmp_path)
    assert_whole(crystals, target)
    after = stamps(target)
    assert {name for name in after if after[name] != before[name]} == {"shard-00001.h5", "shard-00002.h5"}


def test_killed_half_way_and_started_again(crystals, tmp_path):
    target = place_of_copy(tmp_path, crystals)
    # Killed in the middle of the second shard.
    manifest = read_manifest(crystals)
    limit = manifest.index.bytes + manifest.shards[0].bytes + manifest.shards[1].bytes // 2
    program = SETUP + f"done = 0\nfor size in copying:\n    done += size\n    if done > {limit}:\n"
    program += "        os.kill(os.getpid(), signal.SIGKILL)\n"
    killed = run_command([sys.executable, "-c", program, str(crystals), str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in target.iterdir()) == ["index.h5", "shard-00000.h5", "shard-00001.h5.part"]
    with pytest.raises(MachineError, match=r"shard-00001\.h5 on .*: another rank of this node has staged it"):
        check_copy(target, manifest)
    before = stamps(target)
    copy(crystals, tmp_path)
    assert_whole(crystals, target)
    assert {name: stamps(target)[name] for name in before} == before


def test_several_jobs_at_once(crystals, tmp_path):
    program = SETUP + "print(sum(copying))"
    command = [sys.executable, "-c", program, str(crystals), str(tmp_path)]
    jobs = [subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [job.communicate(timeout=60)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4
    assert len(set(outputs)) == 1
    assert_whole(crystals, place_of_copy(tmp_path, crystals))


def test_another_job_is_waited_for_in_small_steps(crystals, tmp_path):
    copy(crystals, tmp_path)
    with (tmp_path / f"matsci-hpc-{os.getuid()}" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copying = copy_data_sets([(crystals, read_manifest(crystals))], tmp_path)
        assert [next(copying) for _ in range(3)] == [0, 0, 0]
    assert sum(copying) > 0


def test_given_up_in_the_middle_leaves_nothing_half(crystals, tmp_path):
    copying = copy_data_sets([(crystals, read_manifest(crystals))], tmp_path)
    next(copying)
    target = place_of_copy(tmp_path, crystals)
    assert [path.name for path in target.iterdir()] == ["index.h5.part"]
    copying.close()
    assert list(target.iterdir()) == []
    copy(crystals, tmp_path)  # the lock was given back
    assert_whole(crystals, target)


def test_a_disk_that_others_fill_meanwhile(crystals, tmp_path):
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=2m none "{tmp_path}/disk" && exec "$@"'
    alone = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c", mount, "sh"]
    if run_command([*alone, "true"]).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    program = SETUP + (
        "from matsci_hpc.errors import MachineError\n"
        "next(copying)\n"
        "try:\n    (root / 'other').write_bytes(bytes(1 << 22))\nexcept OSError:\n    pass\n"
        "try:\n    print(sum(copying))\nexcept MachineError as error:\n    print('error:', error)\n"
        "print(*root.glob('*/*/*.part'))\n"
    )
    command = [*alone, sys.executable, "-c", program, str(crystals), str(tmp_path / "disk")]
    result = run_command(command)
    assert result.returncode == 0, result.stderr
    line, parts = result.stdout.splitlines()
    assert line.startswith(f"error: {tmp_path / 'disk'} on ")
    assert "full while staging" in line
    assert parts == ""


def test_a_folder_of_somebody_else(crystals, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"matsci-hpc-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserInputError, match="is not a folder of yours; name another one"):
        copy(crystals, tmp_path)
    assert list((tmp_path / "theirs").iterdir()) == []


def test_a_folder_that_cannot_be(crystals, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match="cannot be written"):
        copy(crystals, tmp_path / "file")


def test_the_disk_of_the_job(tmp_path):
    job, scratch = tmp_path / "job", tmp_path / "scratch"
    job.mkdir()
    scratch.mkdir()
    both = {"SLURM_TMPDIR": str(job), "TMPDIR": str(scratch)}
    assert staging_root(tmp_path / "mine", both) == tmp_path / "mine"
    assert staging_root(None, both) == job
    assert staging_root(None, {"TMPDIR": str(scratch)}) == scratch
    assert staging_root(None, {"SLURM_TMPDIR": str(tmp_path / "gone"), "TMPDIR": str(scratch)}) == scratch
    assert str(staging_root(None, {})) == "/tmp"  # noqa: S108
