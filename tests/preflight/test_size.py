import pytest

from matsci_hpc.preflight.size import batch_findings, block_findings, node_findings, speed_findings


def only(findings):
    (finding,) = findings
    return finding


@pytest.mark.parametrize(
    ("machine", "size", "level", "text"),
    [
        ({"cores_per_node": 8}, {"cpus_per_rank": 4}, "ok", "2 ranks a node x 4 cores = 8 of its 8 cores"),
        ({"cores_per_node": 8}, {"cpus_per_rank": 5}, "error", "= 10 cores, and a node has 8"),
        ({}, {"cpus_per_rank": 5}, "note", "the site file tells no cores"),
        ({"cores_per_node": 8}, {"kind": "gpu", "cpus_per_rank": 5}, "note", "a node of kind gpu"),
    ],
)
def test_cores(machine, size, level, text, job, site):
    finding = only(node_findings(job(**size), site(**machine)))
    assert finding.level == level
    assert text in finding.text


def test_gpus_and_memory_of_a_node(job, site):
    size = {"gpus_per_rank": 3, "memory": "200G"}
    machine = {"cores_per_node": 8, "gpus_per_node": 6, "memory_per_node": "200G"}
    assert [each.level for each in node_findings(job(**size), site(**machine))] == ["ok"]
    found = list(node_findings(job(**size), site(**machine | {"gpus_per_node": 4, "memory_per_node": "199G"})))
    assert [each.level for each in found] == ["ok", "error", "error"]
    assert "2 ranks a node x 3 GPUs = 6 GPUs, and a node has 4" in found[1].text
    assert "a job can have 199G (214 GB) of a node" in found[2].text


def test_more_ranks_than_cores_here(job, site):
    assert only(node_findings(job(ranks_per_node=1), site(scheduler="local"))).level == "ok"
    assert only(node_findings(job(ranks_per_node=4096), site(scheduler="local"))).level == "warning"


@pytest.mark.parametrize(("ranks", "level"), [(1, "ok"), (4, "ok"), (5, "warning"), (8, "warning"), (9, "warning")])
def test_graphs_against_ranks(ranks, level, train_config):
    finding = only(batch_findings(train_config(), ranks))
    assert finding.level == level
    if ranks == 9:
        assert "8 graphs a step on 9 ranks: in every step 1 have nothing to do" in finding.text


def test_batches_by_cost_are_left_to_the_plan(train_config):
    assert not list(batch_findings(train_config(batch={"cost": 1e5}), 4096))


def test_speeds_by_hand(train_config):
    config = train_config(balance={"speeds": [1, 1, 4]})
    assert not list(speed_findings(config, 3))
    assert only(speed_findings(config, 4)).level == "error"


@pytest.mark.parametrize(("ranks", "level"), [(5, "ok"), (6, "warning")])
def test_blocks_against_ranks(ranks, level, prep_config):
    finding = only(block_findings(prep_config(), 300, ranks))
    assert finding.level == level
    if level == "warning":
        assert "300 inputs in 5 blocks of 64, so 1 of 6 ranks get none" in finding.text
        # The advice holds what it promises.
        assert only(block_findings(prep_config(shard_size=50), 300, ranks)).level == "ok"
        assert "shard_size 50 or less" in finding.advice
