"""`matsci-hpc doctor` on this machine, alone and as two ranks; and how it reads other machines."""

import json
import subprocess
import sys

import click
import pytest
from ranks import mpirun, run_command

from matsci_hpc.doctor.child import ChildError, run_python
from matsci_hpc.doctor.cpu import SIMD, cgroup_limits
from matsci_hpc.doctor.fabric import fast_devices, interfaces
from matsci_hpc.doctor.gpu import gpus_on_bus
from matsci_hpc.doctor.packages import PACKAGES, Package, examine
from matsci_hpc.doctor.rank import Rank, rank_findings
from matsci_hpc.parallel.discovery import RankInfo, discover
from matsci_hpc.processor import read_cpuinfo
from matsci_hpc.versions import same_series, series

DOCTOR = (sys.executable, "-m", "matsci_hpc", "doctor")


def test_this_machine_as_json(tmp_path):
    result = subprocess.run([*DOCTOR, tmp_path, "--json"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["errors"] == 0
    assert list(told["sections"]) == ["packages", "CPU", "GPU", "energy", "MPI", "network", "ranks", str(tmp_path)]
    packages = {each["topic"]: each for each in told["sections"]["packages"]}
    assert set(packages) == {each.name for each in PACKAGES}
    assert packages["torch"]["level"] == "ok"
    met = [each["level"] for each in told["sections"]["MPI"] if each["topic"] == "two ranks"]
    assert met == ["ok"]


@pytest.mark.mpi
def test_two_ranks_tell_of_themselves():
    result = run_command(mpirun(2, *DOCTOR), timeout_s=100)
    assert result.returncode == 0, result.stderr
    lines = click.unstyle(result.stdout).splitlines()  # mpirun gives its ranks a terminal
    assert lines.count("packages") == 1  # one rank prints
    assert "2 ranks on " in result.stdout
    assert "training can run here" in result.stdout


def test_a_path_that_is_not_there(tmp_path):
    result = subprocess.run([*DOCTOR, tmp_path / "no"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no such file or folder" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_package_that_kills_the_interpreter(tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n")
    info = tmp_path / "deadly-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = examine(Package("deadly", "deadly", "nothing; without it all is well"), "2.13.0")
    assert found.level == "warning"
    assert "1.2" in found.text
    assert "was killed by signal 6" in found.text
    assert found.text.endswith("without it all is well")
    needed = examine(Package("not-there-at-all", "nothing", "everything", needed=True), "2.13.0")
    assert needed.level == "error"


def test_versions_are_compared_before_anything_is_imported(tmp_path, monkeypatch):
    assert series("2.8.0+cpu") == (2, 8)
    assert same_series("2.8.0+cpu", "2.8.1") is None
    assert same_series("2.8.0", "2.13.0+cpu") == "it needs torch 2.8, and this is 2.13.0+cpu"
    marker = tmp_path / "imported"
    (tmp_path / "deadly.py").write_text(f"open({str(marker)!r}, 'w')\n")
    info = tmp_path / "deadly-2.8.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 2.8.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = examine(Package("deadly", "deadly", "layers; without it those of torch", fits=same_series), "2.13.0")
    assert found.level == "warning"
    assert not marker.exists()


def test_a_child_says_what_befell_it():
    with pytest.raises(ChildError, match="took more than 1 s"):
        run_python("import time; time.sleep(60)", 1)
    with pytest.raises(ChildError, match="ZeroDivisionError"):
        run_python("1 / 0")


def test_processors_of_other_machines(tmp_path):
    block = (
        "processor\t: {}\nmodel name\t: Xeon 9480\nphysical id\t: {}\ncore id\t: {}\n"
        "flags\t: fpu avx2 avx512f amx_bf16\n"
    )
    both = (0, 1)
    blocks = [block.format(4 * a + 2 * b + c, a, b) for a in both for b in both for c in both]
    found = read_cpuinfo("\n".join(blocks))
    assert (found.model, found.sockets, found.cores, found.threads) == ("Xeon 9480", 2, 4, 8)
    assert [each for each in SIMD if each in found.flags] == ["avx2", "avx512f", "amx_bf16"]
    assert cgroup_limits(tmp_path) == (None, None)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("8589934592\n")
    assert cgroup_limits(tmp_path) == (1.5, 8 << 30)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup_limits(tmp_path) == (None, None)


def test_networks_and_gpus_of_other_machines(tmp_path):
    port = tmp_path / "infiniband/mlx5_0/ports/1"
    port.mkdir(parents=True)
    (port / "link_layer").write_text("InfiniBand\n")
    (port / "rate").write_text("200 Gb/sec (4X HDR)\n")
    (port / "state").write_text("4: ACTIVE\n")
    (tmp_path / "cxi/cxi0").mkdir(parents=True)
    assert fast_devices(tmp_path) == ["mlx5_0: InfiniBand, 200 Gb/sec (4X HDR), ACTIVE", "cxi0: Slingshot"]
    for name, state, speed in (("hsn0", "up", "200000"), ("eth1", "down", "1000"), ("lo", "unknown", "")):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "operstate").write_text(state)
        (tmp_path / "net" / name / "speed").write_text(speed)
    assert interfaces(tmp_path) == {"hsn0": 200000, "lo": None}
    device = tmp_path / "pci/0000:c1:00.0"
    device.mkdir(parents=True)
    for name, text in (("class", "0x030200"), ("vendor", "0x10de"), ("numa_node", "1")):
        (device / name).write_text(text)
    (gpu,) = gpus_on_bus(tmp_path / "pci")
    assert (gpu.vendor, gpu.driver, gpu.domain) == ("NVIDIA", None, 1)


def rank(cores, threads=1, host="node1", domains=(0,), **settings):
    known = dict.fromkeys(discovered().settings)
    return Rank(host, cores, domains, 8, threads, known | settings)


def discovered():
    from matsci_hpc.doctor.rank import this_rank

    return this_rank({})


def said(ranks, launcher="srun"):
    info = discover({})
    fields = {name: getattr(info, name) for name in RankInfo.__dataclass_fields__}
    return [(each.level, each.text) for each in rank_findings(ranks, RankInfo(**fields | {"launcher": launcher}))]


def test_ranks_that_are_placed_badly():
    assert ("warning", "ranks 0-1 are bound to the same cores") in said([rank("0"), rank("0")])
    assert not [text for level, text in said([rank("0"), rank("1")]) if "same cores" in text]
    wide = said([rank("0-3", domains=(0, 1)), rank("4-7", domains=(1,))])
    assert [text for level, text in wide if level == "warning" and "lie in several memory domains" in text]
    crowded = said([rank("0-1", 4), rank("2-3", 4)])
    assert ("warning", "8 threads of all ranks on 4 CPUs of node1") in crowded


def test_variables_that_differ_or_contradict_each_other():
    differ = said([rank("0", MALLOC_MMAP_MAX_="0"), rank("1")])
    assert ("warning", "MALLOC_MMAP_MAX_: 0 on ranks 0; not set on ranks 1") in differ
    contradict = said([rank("0", 2, MKL_NUM_THREADS="4", OMP_NUM_THREADS="2")])
    assert ("warning", "MKL_NUM_THREADS=4 wins over OMP_NUM_THREADS=2 in torch") in contradict
