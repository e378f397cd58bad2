"""Measurements of the network: kept, read back, and summed up in two numbers."""

import json

import pytest
import torch

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.all_reduce_times import SIZES, fit_line, time_all_reduces
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.parallel.measurements import (
    Key,
    Measurement,
    Point,
    keep_measurement,
    measurements_path,
    read_measurements,
)


def points(latency_s, bandwidth):
    times = {size: latency_s + size / bandwidth for size in SIZES}
    return tuple(Point(bytes=size, time_s=t, low_s=t, high_s=t, repeats=9) for size, t in times.items())


def measurement(latency_s=1e-5, **key):
    known = {"ranks": 2, "nodes": 1, "ranks_per_node": 2, "device": "cpu", "host": "a cluster", "fabric": "TCP"}
    return Measurement(
        key=Key(**{"backend": "gloo", "versions": {"torch": "2.13.0"}} | known | key),
        date="2026-01-01T00:00:00+00:00",
        small_s=latency_s,
        latency_s=latency_s,
        bandwidth_bytes_per_s=1e9,
        points=points(latency_s, 1e9),
    )


@pytest.mark.parametrize(("latency_s", "bandwidth"), [(5e-6, 1e9), (4e-5, 1e9), (1e-5, 1e10), (3e-4, 1e9)])
def test_a_line_is_found_though_one_size_was_disturbed(latency_s, bandwidth):
    assert fit_line(points(latency_s, bandwidth)) == pytest.approx((latency_s, bandwidth), rel=1e-6)
    for disturbed in range(len(SIZES)):
        found = [
            each.model_copy(update={"time_s": 5 * each.time_s}) if number == disturbed else each
            for number, each in enumerate(points(latency_s, bandwidth))
        ]
        assert fit_line(found) == pytest.approx((latency_s, bandwidth), rel=0.05)


def test_times_that_are_no_line_still_give_possible_numbers():
    falling = [Point(bytes=size, time_s=t, low_s=t, high_s=t, repeats=3) for size, t in ((4, 3e-3), (1024, 1e-3))]
    latency_s, bandwidth = fit_line(falling)
    assert latency_s >= 0
    assert bandwidth > 0


def test_one_measurement_of_each_key_is_kept(tmp_path):
    path = tmp_path / "new folder" / "communication.json"
    assert read_measurements(path) == ([], None)
    first, second, other = measurement(1e-5), measurement(2e-5), measurement(3e-5, backend="mpi")
    for each in (first, other, second):
        assert keep_measurement(path, each) is None
    assert read_measurements(path) == ([other, second], None)
    horovod = [measurement(backend="horovod", operations=each) for each in ("mpi", "ccl")]
    for each in horovod:
        assert keep_measurement(path, each) is None
    assert read_measurements(path) == ([other, second, *horovod], None)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"format": 2}', b'{"format": 1, "measurements": [{"key": {}}]}', b'{"more": 1}'],
)
def test_a_damaged_file_is_said_and_set_aside(tmp_path, content):
    path = tmp_path / "communication.json"
    path.write_bytes(content)
    known, trouble = read_measurements(path)
    assert known == []
    assert str(path) in trouble
    assert "communication.json.damaged" in keep_measurement(path, measurement())
    assert read_measurements(path) == ([measurement()], None)
    assert (tmp_path / "communication.json.damaged").read_bytes() == content


def test_a_time_that_is_no_number_is_damage(tmp_path):
    path = tmp_path / "communication.json"
    assert keep_measurement(path, measurement()) is None
    told = json.loads(path.read_text())
    told["measurements"][0]["points"][0]["time_s"] = -1
    path.write_text(json.dumps(told))
    known, trouble = read_measurements(path)
    assert known == []
    assert "measurements.0.points.0.time_s" in trouble


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in keep_measurement(tmp_path / "file" / "communication.json", measurement())
    assert "cannot be read" in read_measurements(tmp_path)[1]


def test_where_they_are_kept(tmp_path):
    assert measurements_path({"MATSCI_HPC_MEASUREMENTS": "/a/b.json", "XDG_DATA_HOME": "/c"}).as_posix() == "/a/b.json"
    above = measurements_path({"XDG_DATA_HOME": str(tmp_path)})
    assert above == tmp_path / "matsci-hpc/communication.json"
    assert measurements_path({}).as_posix().endswith(".local/share/matsci-hpc/communication.json")


def test_wrong_sums_are_noticed():
    class Faulty(SingleProcess):
        name = "faulty"

        def all_reduce(self, tensor: torch.Tensor, operation="sum"):  # noqa: ARG002 - as the protocol has it
            if tensor.numel() == 1024:
                tensor[1000] += 1

    with pytest.raises(MachineError, match="faulty gives wrong sums of tensors of 4096 bytes"):
        time_all_reduces(Faulty(), SingleProcess(), 0.1)
