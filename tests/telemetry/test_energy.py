import math
import os
import tempfile
from pathlib import Path

import pytest
import torch

from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.telemetry import rapl
from matsci_hpc.telemetry.energy import open_meter
from matsci_hpc.telemetry.nvml import GpuEnergy
from matsci_hpc.telemetry.rapl import Rapl


@pytest.fixture
def powercap(tmp_path):
    """The layout of /sys/class/powercap on a node of two sockets; add(zone, microjoules) lets a counter grow."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "dram",
        "intel-rapl:0:1": "core",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    (tmp_path / "intel-rapl").mkdir()
    for zone, name in zones.items():
        folder = tmp_path / zone
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
        (folder / "energy_uj").write_text("262143000000\n" if name == "package-1" else "5000000\n")
    return tmp_path


def add(folder, zone, microjoules):
    file = folder / zone / "energy_uj"
    limit = int((folder / zone / "max_energy_range_uj").read_text())
    file.write_text(f"{(int(file.read_text()) + microjoules) % limit}\n")


def test_packages_and_memory_count_once_and_their_parts_not_again(powercap):
    counters = Rapl(powercap)
    assert counters.names == ["package-0", "dram", "package-1", "dram"]
    for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:2", "intel-rapl-mmio:0"):
        add(powercap, zone, 3_000_000)
    assert counters.take() == pytest.approx(6.0)
    assert counters.take() == 0.0


def test_a_counter_that_begins_anew_loses_nothing(powercap):
    counters = Rapl(powercap)
    add(powercap, "intel-rapl:1", 1_500_000)  # 0.33 J before its end
    assert int((powercap / "intel-rapl:1/energy_uj").read_text()) < 2_000_000
    assert counters.take() == pytest.approx(1.5)


def test_it_is_read_between_lines_before_a_counter_comes_round_twice(powercap, monkeypatch):
    monkeypatch.setattr(rapl, "READ_EVERY_S", 0.0)
    counters = Rapl(powercap)
    for _ in range(3):  # almost a whole round each
        add(powercap, "intel-rapl:1", 250_000_000_000)
        counters.tick()
    assert counters.take() == pytest.approx(750_000.0)


def test_evaluations_and_checkpoints_are_watched_too(powercap, monkeypatch):
    """Whatever a rank does, it says that it gets on."""
    monkeypatch.setattr(rapl, "READ_EVERY_S", 0.0)
    comm = SingleProcess()
    meter = open_meter(comm, torch.device("cpu"), powercap)
    for sign in (comm.activity.tick, lambda: comm.activity.at("checkpoint"), comm.activity.tick):
        add(powercap, "intel-rapl:1", 250_000_000_000)
        sign()
    assert meter.take()[0] == pytest.approx(750_000.0)


def test_counters_that_only_root_may_read_are_told_as_such():
    if os.geteuid() != 0:
        pytest.skip("becomes another user, which root alone may")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        zone = folder / "intel-rapl:0"
        zone.mkdir(mode=0o755)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text("1000\n")
        (zone / "energy_uj").write_text("5\n")
        (zone / "energy_uj").chmod(0o400)  # as the kernel makes it since 5.10
        assert Rapl(folder).names == ["package-0"]
        os.seteuid(65534)
        try:
            with pytest.raises(OSError, match="energy_uj may be read by root only; ask the site"):
                Rapl(folder)
        finally:
            os.seteuid(0)


def test_a_meter_says_why_it_reads_nothing_and_goes_on(tmp_path, powercap):
    none = open_meter(SingleProcess(), torch.device("cpu"), tmp_path / "none")
    assert none.cpu == f"the kernel shows no energy counter in {tmp_path / 'none'}"
    assert all(math.isnan(joules) for joules in none.take())
    meter = open_meter(SingleProcess(), torch.device("cpu"), powercap)
    assert (meter.cpu, meter.gpu) == ("RAPL: package-0, dram, package-1, dram", "")
    add(powercap, "intel-rapl:0", 2_000_000)
    assert meter.take()[0] == pytest.approx(2.0)
    (powercap / "intel-rapl:0/energy_uj").unlink()  # taken away while the run goes on
    assert math.isnan(meter.take()[0])
    meter.tick()
    assert math.isnan(meter.take()[0])


def test_a_machine_without_nvml_is_told_in_words():
    with pytest.raises(OSError, match=r"^(NVML: |needs the package nvidia-ml-py)"):
        GpuEnergy("GPU-00000000-0000-0000-0000-000000000000")
