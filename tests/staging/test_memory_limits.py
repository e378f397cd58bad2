"""How much memory there is left, by what real kernels say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import environment

from matsci_hpc.staging.memory import available_bytes

MEMINFO = "MemTotal: 64000 kB\nMemFree: 100 kB\nMemAvailable: 50000 kB\n"


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_machine():
    available, limit = available_bytes()
    assert 10_000_000 < available < 1 << 50
    assert limit


def test_without_limits(tmp_path):
    root = write(tmp_path, {"proc/meminfo": MEMINFO})
    assert available_bytes(root) == (51_200_000, "memory of the node")


def test_a_job_of_slurm_with_groups_of_version_2(tmp_path):
    job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_1\n",
        f"{job}/step_0/user/task_1/memory.max": "max\n",
        f"{job}/memory.max": "30000000\n",
        f"{job}/memory.current": "25000000\n",
        f"{job}/memory.stat": "anon 1\nactive_file 4000000\ninactive_file 6000000\nshmem 9\n",
    }
    available, limit = available_bytes(write(tmp_path, files))
    assert available == 15_000_000
    assert limit.endswith("job_7")


def test_groups_of_version_1(tmp_path):
    job = "sys/fs/cgroup/memory/slurm/uid_1/job_7"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "9:cpu:/\n4:memory:/slurm/uid_1/job_7/step_0\n0::/\n",
        f"{job}/memory.limit_in_bytes": "30000000\n",
        f"{job}/memory.usage_in_bytes": "31000000\n",
        f"{job}/memory.stat": "inactive_file 0\ntotal_inactive_file 2000000\ntotal_active_file 0\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
    }
    available, limit = available_bytes(write(tmp_path, files))
    assert available == 1_000_000
    assert limit.endswith("job_7")


def own_memory_group():
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
        if not controllers and Path(f"/sys/fs/cgroup{path}/memory.max").exists():
            return Path("/sys/fs/cgroup" + path), "memory.max"
    pytest.skip("no control group for memory")


def test_a_real_limit():
    parent, name = own_memory_group()
    group = parent / f"matsci-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text("200000000")
    except OSError:
        pytest.skip("this machine lets nobody make a control group")
    program = (
        f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from matsci_hpc.staging.memory import available_bytes\nprint(*available_bytes(), sep='|')"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        group.rmdir()
    available, limit = done.stdout.strip().split("|")
    assert 100_000_000 < int(available) <= 200_000_000
    assert limit == f"memory limit of {group}"
