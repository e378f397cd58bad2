import json

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.measurements import Key, Measurement, Point
from matsci_hpc.scaling.communication import Network, all_reduce_time
from matsci_hpc.scaling.fabrics import FABRICS
from matsci_hpc.scaling.networks import fabric_links, measured_links


def measurement(ranks, nodes, *, latency_s=2e-5, bandwidth=1e9, backend="gloo"):
    sizes = (4, 1 << 20)
    times = [latency_s + size / bandwidth for size in sizes]
    return Measurement(
        key=Key(
            backend=backend,
            ranks=ranks,
            nodes=nodes,
            ranks_per_node=-(-ranks // nodes),
            device="cpu",
            host="a cluster",
            fabric="TCP",
            versions={"torch": "2.13.0"},
        ),
        date="2026-01-01T00:00:00+00:00",
        small_s=latency_s,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth,
        points=tuple(
            Point(bytes=size, time_s=t, low_s=t, high_s=t, repeats=9) for size, t in zip(sizes, times, strict=True)
        ),
    )


@pytest.mark.parametrize("algorithm", [None, "ring", "tree", "halving"])
@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_the_measured_ranks_come_out_as_measured(ranks, algorithm):
    links = measured_links([measurement(ranks, 1)], None, 1e6, algorithm)
    network = Network(ranks, ranks, links.within, links.within)
    for size in (8.0, 1e9):
        expected = 2e-5 + size / 1e9
        assert all_reduce_time(size, network, algorithm).total_s == pytest.approx(expected, rel=1e-3)
    assert links.between is None
    assert links.measured


@pytest.mark.parametrize("algorithm", ["ring", "tree", "halving", "two_level"])
@pytest.mark.parametrize(("ranks", "nodes"), [(4, 4), (16, 4), (64, 8)])
def test_nodes_come_out_as_measured(ranks, nodes, algorithm):
    inside, across = measurement(4, 1, latency_s=4e-6, bandwidth=1e10), measurement(ranks, nodes, latency_s=1e-3)
    links = measured_links([inside, across], "gloo", 1e6, algorithm)
    network = Network(ranks, ranks // nodes, links.within, links.between)
    for size in (8.0, 1e9):
        found = all_reduce_time(size, network, algorithm).total_s
        assert found == pytest.approx(1e-3 + size / 1e9, rel=0.01)
    assert f"{ranks} ranks of {nodes} nodes" in links.source
    assert "4 ranks of 1 node" in links.source


def test_nodes_that_take_less_than_their_memory_would():
    inside, across = measurement(4, 1, latency_s=1e-3, bandwidth=1e8), measurement(16, 4, latency_s=1e-5)
    links = measured_links([inside, across], "gloo", 1e6, "two_level")
    assert 0 < links.between.latency_s < 1e-7
    assert links.between.bandwidth_bytes_per_s > 1e11


def test_the_most_ranks_and_the_quickest_backend_count():
    known = [measurement(2, 1), measurement(8, 1, bandwidth=1e8), measurement(8, 1, bandwidth=1e9, backend="mpi")]
    assert measured_links(known, None, 1e6, None).source.startswith("mpi measured on 8 ranks")
    assert measured_links(known, "gloo", 1e6, None).source.startswith("gloo measured on 8 ranks")
    assert measured_links(known, "nccl", 1e6, None) is None


def test_fabrics_by_name():
    found = fabric_links(["hdr", "nvlink-4"])
    assert found.between == FABRICS["hdr"].link
    assert found.within == FABRICS["nvlink-4"].link
    assert not found.measured
    assert "not measured" in found.source
    assert fabric_links([]).between is None
    with pytest.raises(UserInputError, match=r"--fabric hrd: unknown; choose from .*hdr"):
        fabric_links(["hrd"])
    with pytest.raises(UserInputError, match="second one between nodes"):
        fabric_links(["hdr", "ndr"])


def test_a_file_that_doctor_wrote_is_read(tmp_path):
    from matsci_hpc.parallel.measurements import keep_measurement, read_measurements

    path = tmp_path / "communication.json"
    assert keep_measurement(path, measurement(2, 1)) is None
    assert json.loads(path.read_text())["format"] == 1
    found, trouble = read_measurements(path)
    assert trouble is None
    assert measured_links(found, None, 1e6, None).within.latency_s == pytest.approx(2e-5)
