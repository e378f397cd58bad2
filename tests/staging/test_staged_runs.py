"""Runs on real ranks that read their data from where it lies, from a copy on disk and from shared memory."""

import json
import os
import shutil
import socket
import sys

import pytest
import torch
from crystal_data import prepare_crystals
from ranks import mpirun, run_command, run_ranks
from safetensors.torch import load_file

pytestmark = pytest.mark.mpi
TRAIN = (sys.executable, "-m", "matsci_hpc", "train")


def errors(result):
    return [line for line in result.stderr.splitlines() if line.startswith("matsci-hpc: error: ")]


def test_the_same_run_to_the_last_bit(crystals, config, losses, tmp_path):
    path = config(crystals)
    disk = f"data.staging.folder={tmp_path / 'disk'}"
    for where in ("none", "local", "shared"):
        result = run_ranks(2, "train", path, f"run_dir={tmp_path / where}", f"data.staging.where={where}", disk)
        assert result.returncode == 0, result.stdout + result.stderr
        assert ("staged in" in result.stdout) == (where != "none")
    assert len(losses(tmp_path / "none")) == 14
    assert losses(tmp_path / "local") == losses(tmp_path / "none")
    assert losses(tmp_path / "shared") == losses(tmp_path / "none")
    expected = load_file(tmp_path / "none/checkpoints/step-000012/model.safetensors")
    for where in ("local", "shared"):
        found = load_file(tmp_path / where / "checkpoints/step-000012/model.safetensors")
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("where", ["none", "shared"])
def test_edges_found_while_loading_train_the_same(crystals, config, losses, tmp_path, where):
    lean = prepare_crystals(tmp_path / "lean", store=False)
    runs = {}
    for name, data in (("stored", crystals), ("found", lean)):
        result = run_ranks(2, "train", config(data), f"run_dir={tmp_path / name}", f"data.staging.where={where}")
        assert result.returncode == 0, result.stdout + result.stderr
        runs[name] = losses(tmp_path / name)
    assert len(runs["found"]) == 14
    assert runs["found"] == runs["stored"]


def test_the_staged_copy_is_what_is_read(crystals, config, tmp_path):
    # Without its shards the data set is of no use, unless they are read elsewhere.
    data = shutil.copytree(crystals, tmp_path / "data")
    disk = f"data.staging.folder={tmp_path / 'disk'}"
    assert run_ranks(1, "train", config(data), f"run_dir={tmp_path / 'a'}", "data.staging.where=local", disk)
    for shard in data.glob("shard-*"):
        shard.unlink()
    again = run_ranks(2, "train", config(data), f"run_dir={tmp_path / 'b'}", "data.staging.where=local", disk)
    assert again.returncode == 0, again.stderr
    assert run_ranks(2, "train", config(data), f"run_dir={tmp_path / 'c'}").returncode == 3


@pytest.mark.slow
def test_a_run_may_go_on_staged_otherwise(crystals, config, losses, tmp_path):
    path, run = config(crystals), f"run_dir={tmp_path / 'run'}"
    assert run_ranks(2, "train", path, run, "max_time_s=1.0e-6").returncode == 0
    assert not (tmp_path / "run" / "DONE").exists()
    assert run_ranks(2, "train", path, run, "data.staging.where=shared", "max_time_s=1.0e-6").returncode == 0
    disk = f"data.staging.folder={tmp_path / 'disk'}"
    assert run_ranks(2, "train", path, run, "data.staging.where=local", disk).returncode == 0
    whole = run_ranks(2, "train", path, f"run_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("where", ["local", "shared"])
def test_damage_is_found_while_staging(crystals, config, tmp_path, where, ranks):
    data = shutil.copytree(crystals, tmp_path / "data")
    damaged = bytearray((data / "shard-00002.h5").read_bytes())
    damaged[len(damaged) // 2] ^= 4
    (data / "shard-00002.h5").write_bytes(damaged)
    overrides = [f"run_dir={tmp_path / 'run'}", f"data.staging.where={where}", f"data.staging.folder={tmp_path}/disk"]
    result = run_ranks(ranks, "train", config(data), *overrides)
    assert result.returncode == 3
    (line,) = errors(result)
    assert f"{data / 'shard-00002.h5'}: the checksum differs" in line
    assert ("rank " in line) == (ranks > 1)
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "disk").glob("*/*/*.part"))


def test_too_little_memory_is_said_before(crystals, config, tmp_path):
    data = shutil.copytree(crystals, tmp_path / "data")
    manifest = json.loads((data / "dataset.json").read_text())
    del manifest["xxh3_128"]
    manifest["shards"][1]["bytes"] = 10**15
    (data / "dataset.json").write_text(json.dumps(manifest))
    result = run_ranks(2, "train", config(data), f"run_dir={tmp_path / 'run'}", "data.staging.where=shared")
    assert result.returncode == 3
    (line,) = errors(result)
    assert "staging needs 1e+06 GB of memory" in line
    assert "use data.staging.where=local" in line


def test_a_disk_too_small_is_said_before(crystals, config, tmp_path):
    # A real small disk, which goes away with the process.
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=40k none "{tmp_path}/disk" && exec "$@"'
    alone = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c", mount, "sh"]
    if run_command([*alone, "true"]).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    staging = ["data.staging.where=local", f"data.staging.folder={tmp_path / 'disk'}"]
    result = run_command([*alone, *mpirun(2, *TRAIN, config(crystals), f"run_dir={tmp_path / 'run'}", *staging)])
    assert result.returncode == 3
    (line,) = errors(result)
    assert "e-05 GB are free" in line
    assert "name a larger disk in data.staging.folder" in line


def test_shared_needs_ranks_of_mpi(crystals, config, tmp_path):
    overrides = [f"run_dir={tmp_path / 'run'}", "data.staging.where=shared"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = run_command([*launcher, "-m", "matsci_hpc", "train", str(config(crystals)), *overrides])
    assert result.returncode != 0
    (line,) = errors(result)
    assert "these are torchrun's; use data.staging.where=local" in line
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    result = run_ranks(2, "train", config(crystals), *overrides, **place)
    assert result.returncode == 3
    (line,) = errors(result)
    assert "needs MPI, which cannot be loaded" in line
    assert line.endswith("use data.staging.where=local")


def test_a_bug_on_one_rank_ends_a_job_that_shares_memory(crystals, config, tmp_path):
    program = (
        "import os\nfrom matsci_hpc import cli\nfrom matsci_hpc.training.loop import Trainer\n"
        "step = Trainer._step\n"
        "def fail(self, works):\n"
        "    return 1 // 0 if os.environ['OMPI_COMM_WORLD_RANK'] == '1' else step(self, works)\n"
        "Trainer._step = fail\ncli.main()\n"
    )
    overrides = [f"run_dir={tmp_path / 'run'}", "data.staging.where=shared"]
    result = run_command(mpirun(2, sys.executable, "-c", program, "train", config(crystals), *overrides), timeout_s=60)
    assert result.returncode != 0
    assert "ZeroDivisionError" in result.stderr


def test_two_nodes_that_share_a_disk(crystals, config, losses, tmp_path):
    # Another host name, as on another node; the disk is the same, so one copies and the other finds the copy.
    other = ["unshare", "--uts", *([] if os.getuid() == 0 else ["--map-root-user"])]
    other += ["sh", "-c", 'hostname another && exec "$@"', "sh"]
    if run_command([*other, "true"]).returncode:
        pytest.skip("this machine lets nobody change a host name")
    staging = ["data.staging.where=local", f"data.staging.folder={tmp_path / 'disk'}"]
    arguments = [*TRAIN, str(config(crystals)), f"run_dir={tmp_path / 'run'}", *staging]
    result = run_command([*mpirun(2, *arguments), ":", "-n", "1", *other, *arguments])
    assert result.returncode == 0, result.stderr
    assert "on each of 2 nodes" in result.stdout
    assert len(losses(tmp_path / "run")) == 14
