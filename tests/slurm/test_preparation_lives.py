"""A preparation that its time limit ends goes on with the shards that it has."""

from launching import LoginNode, wait_for_restarts


def finished(out):
    """When each shard was made that has its record: one that was ended before it was written is made once more."""
    numbers = {path.stem.removeprefix("block-") for path in out.glob(".work/block-*.json")}
    return {n: (out / f"shard-{n}.h5").stat().st_mtime_ns for n in numbers}


def test_preparation_goes_on_after_its_time_limit(cluster, tmp_path):
    node = LoginNode(cluster, tmp_path, ranks_per_node=1, signal_before_end_s=15)
    # More than fits into any number of lives.
    source = {"kind": "symmetry", "samples": 400_000_000, "seed": 5}
    config = node.prep_config(source=source, shard_size=4096, neighbors={"cutoff": 2.0, "store": False})
    (job,) = node.submit(config, "--nodes", 2, "--time", "00:01:00")
    wait_for_restarts(cluster, job, 1)
    out = tmp_path / "datasets/clouds"
    first = finished(out)
    assert first
    assert "goes on from there" in cluster.log(job)
    wait_for_restarts(cluster, job, 2)
    again = finished(out)
    assert len(again) > len(first)
    assert {name: again[name] for name in first} == first  # none was made twice
    assert node.standings()[job]["step"] == len(list(out.glob("shard-*.h5")))
    node.run("cancel", job)
    cluster.wait_for(job, "CANCELLED")
