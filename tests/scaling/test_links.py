import json

import pytest

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.measurements import Key, Measurement, Point, keep_measurement, read_measurements
from matsci_hpc.scaling.choose_links import choose_links
from matsci_hpc.scaling.communication import Network, all_reduce_time
from matsci_hpc.scaling.fabrics import FABRICS
from matsci_hpc.scaling.networks import Layout, fabric_links, measured_links


def measurement(ranks, nodes, *, latency_s=2e-5, bandwidth=1e9, backend="gloo", device="cpu", host="a cluster"):
    sizes = (4, 1 << 20)
    times = [latency_s + size / bandwidth for size in sizes]
    return Measurement(
        key=Key(
            backend=backend,
            ranks=ranks,
            nodes=nodes,
            ranks_per_node=-(-ranks // nodes),
            device=device,
            host=host,
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
    links = measured_links([measurement(ranks, 1)], None, Layout(1e6, algorithm))
    network = Network(ranks, ranks, links.within, links.within)
    for size in (8.0, 1e9):
        expected = 2e-5 + size / 1e9
        assert all_reduce_time(size, network, algorithm).total_s == pytest.approx(expected, rel=1e-3)
    assert links.between is None
    assert links.measured


@pytest.mark.parametrize("ports", [1, 4])
@pytest.mark.parametrize("algorithm", [None, "ring", "tree", "halving", "two_level"])
@pytest.mark.parametrize(("ranks", "nodes"), [(4, 4), (16, 4), (64, 8)])
def test_nodes_come_out_as_measured(ranks, nodes, algorithm, ports):
    inside, across = measurement(4, 1, latency_s=4e-6, bandwidth=1e10), measurement(ranks, nodes, latency_s=1e-3)
    links = measured_links([inside, across], "gloo", Layout(1e6, algorithm, ports))
    network = Network(ranks, ranks // nodes, links.within, links.between, ports)
    for size in (8.0, 1e9):
        found = all_reduce_time(size, network, algorithm).total_s
        assert found == pytest.approx(1e-3 + size / 1e9, rel=0.01)
    assert f"{ranks} ranks of {nodes} nodes" in links.source
    assert "4 ranks of 1 node" in links.source


def test_nodes_that_take_less_than_their_memory_would():
    inside, across = measurement(4, 1, latency_s=1e-3, bandwidth=1e8), measurement(16, 4, latency_s=1e-5)
    links = measured_links([inside, across], "gloo", Layout(1e6, "two_level"))
    assert 0 < links.between.latency_s < 1e-7
    assert links.between.bandwidth_bytes_per_s > 1e11
    assert "the latency and the bandwidth between nodes cannot be told" in links.remarks[0]
    clear = measured_links([inside, measurement(16, 4, latency_s=1e-1, bandwidth=1e7)], "gloo", Layout(1e6))
    assert clear.remarks == ()


def test_both_links_are_of_one_backend():
    known = [
        measurement(64, 1, bandwidth=1e8),
        measurement(8, 1, bandwidth=1e11, backend="nccl"),
        measurement(16, 4, bandwidth=1e10, backend="nccl"),
    ]
    links = measured_links(known, None, Layout(1e6, nodes=4))
    assert "gloo" not in links.source
    assert links.source.count("nccl measured on") == 2
    one_node = measured_links(known, None, Layout(1e6))
    assert one_node.source.startswith("gloo measured on 64 ranks")
    assert one_node.between is None


def test_the_table_fills_in_what_was_not_measured():
    one_node = measured_links([measurement(8, 1)], None, Layout(1e6), ["hdr", "nvlink-4"])
    assert one_node.between == FABRICS["hdr"].link
    assert one_node.source.endswith(", between nodes hdr (table, not measured)")
    assert one_node.remarks == ("--fabric nvlink-4 counts for nothing: its links were measured",)
    nodes = measured_links([measurement(8, 4)], None, Layout(1e6), ["nvlink-4"])
    assert nodes.within == FABRICS["nvlink-4"].link
    assert "within a node nvlink-4" in nodes.source


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function that gives the links of a question where some measurements are kept."""
    path = tmp_path / "communication.json"
    monkeypatch.setenv("MATSCI_HPC_MEASUREMENTS", str(path))
    keys = {"run_dir": "run", "data": {"train": ["data"]}, "steps": 1, "batch": {"graphs": 8}, "device": "cpu"}
    config = TrainConfig.model_validate(keys)

    def links(kept, *, nodes=1, comm=False, fabrics=()):
        for each in kept:
            assert keep_measurement(path, each) is None
        return choose_links(config, Layout(1e6, nodes=nodes), path if comm else None, fabrics)

    return links


def test_measurements_of_other_machines_and_devices_do_not_count(asked, monkeypatch):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    far = measurement(64, 4, host="far away")
    gpus = measurement(32, 4, host="here", device="cuda", backend="nccl")
    assert asked([far, gpus]).source == "shared-memory (table, not measured)"
    with pytest.raises(UserInputError, match="take by --comm what was measured on another machine"):
        asked([], nodes=2)
    assert asked([], comm=True).source.startswith("gloo measured on 64 ranks of 4 nodes (far away")
    with pytest.raises(UserInputError, match=r"several machines \(far away, farther\), and this one is here"):
        asked([measurement(8, 1, host="farther")], comm=True)
    assert asked([measurement(4, 1, host="here")]).source.startswith("gloo measured on 4 ranks of 1 node (here")
    assert asked([], comm=True).source.startswith("gloo measured on 4 ranks of 1 node (here")


def test_a_named_fabric_comes_before_what_was_measured_but_a_named_file_first(asked, monkeypatch):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    kept = [measurement(8, 1, host="here")]
    table = "shared-memory (table, not measured) and hdr (table, not measured)"
    assert asked(kept, nodes=2, fabrics=("hdr",)).source == table
    named = asked([], nodes=2, comm=True, fabrics=("hdr",))
    assert named.source.startswith("gloo measured on 8 ranks")
    assert "shared-memory" not in named.source
    one_node = asked([], fabrics=("hdr",))
    assert (one_node.source, one_node.between) == ("shared-memory (table, not measured)", None)
    with pytest.raises(UserInputError, match="--fabric hrd: unknown"):
        asked([], fabrics=("hrd",))


def test_the_most_ranks_and_the_quickest_backend_count():
    known = [measurement(2, 1), measurement(8, 1, bandwidth=1e8), measurement(8, 1, bandwidth=1e9, backend="mpi")]
    assert measured_links(known, None, Layout(1e6)).source.startswith("mpi measured on 8 ranks")
    assert measured_links(known, "gloo", Layout(1e6)).source.startswith("gloo measured on 8 ranks")
    assert measured_links(known, "nccl", Layout(1e6)) is None


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
    path = tmp_path / "communication.json"
    assert keep_measurement(path, measurement(2, 1)) is None
    assert json.loads(path.read_text())["format"] == 1
    found, trouble = read_measurements(path)
    assert trouble is None
    assert measured_links(found, None, Layout(1e6)).within.latency_s == pytest.approx(2e-5)
