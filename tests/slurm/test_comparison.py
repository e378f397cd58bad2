"""A comparison through a real Slurm: its runs as one array after the data and the pretraining, and the report."""

import re

from launching import LoginNode, write_config


def test_two_arms_and_two_seeds_are_one_array(cluster, tmp_path):
    node = LoginNode(cluster, tmp_path, ranks_per_node=1)
    prep = node.prep_config(splits={"train": 0.6, "val": 0.2, "test": 0.2})
    train = node.train_config("datasets/clouds")
    assert node.run("prep", prep)
    node.run("train", train, "run_dir=runs/pretrain", "seed=99", "steps=4")
    comparison = {
        "base": str(train),
        "out": "comparisons/small",
        "arms": {"scratch": {}, "pretrained": {"init_from": "runs/pretrain"}},
        "seeds": [1, 2],
        "train_samples": [48],
        "steps": 8,
        "metric": {"target": "point_group", "name": "accuracy"},
        "site": str(node.site),
    }
    path = write_config(tmp_path / "comparison.yaml", comparison)
    said = node.run("compare", "submit", path)
    ((job, runs),) = re.findall(r"(?m)^job (\d+): train \S+, nodes 1, ranks 1, (\d) runs", said)
    assert runs == "4"
    assert node.run("compare", "submit", path).strip() == "4 runs: 0 complete, 4 queued, nothing is left to submit"
    for element in range(4):
        cluster.wait_for(f"{job}_{element}", "COMPLETED", timeout_s=300)
    assert node.run("compare", "submit", path).strip() == "4 runs: 4 complete, 0 queued, nothing is left to submit"
    report = node.run("compare", "report", path)
    assert re.search(r"point_group accuracy +48 +pretrained \(2 seeds\)", report)
    assert (tmp_path / "comparisons/small/report/comparison.png").stat().st_size > 10_000
    rows = (tmp_path / "comparisons/small/results.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
