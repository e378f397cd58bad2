"""A scaling study through a real Slurm: one array for each size, and what was measured on two nodes."""

import re

from launching import LoginNode, write_config

AXES = {"ranks": [1, 2], "backend": ["gloo", "mpi"]}


def test_a_study_of_two_sizes_and_two_backends(cluster, tmp_path):
    node = LoginNode(cluster, tmp_path, ranks_per_node=1)
    prep, train = node.prep_config(), node.train_config("datasets/clouds")
    study = {
        "base": str(train),
        "out": "studies/small",
        "scaling": "strong",
        "axes": AXES,
        "prepare": [str(prep)],
        "repeats": 1,
        "warmup_steps": 2,
        "steps": 4,
        "site": str(node.site),
    }
    path = write_config(tmp_path / "study.yaml", study)
    said = node.run("study", "submit", path)
    jobs = re.findall(r"^job (\d+): (\w+) \S+, nodes (\d), ranks (\d)(, 2 runs)?", said, flags=re.MULTILINE)
    assert sorted(each[1:] for each in jobs) == [
        ("prep", "1", "1", ""),
        ("train", "1", "1", ", 2 runs"),
        ("train", "2", "2", ", 2 runs"),
    ]
    again = node.run("study", "submit", path)
    assert again.strip() == "4 runs: 0 complete, 4 queued, nothing is left to submit"
    for job, verb, *_ in jobs:
        for element in (f"{job}_0", f"{job}_1") if verb == "train" else (job,):
            cluster.wait_for(element, "COMPLETED", timeout_s=300)
    done = node.run("study", "collect", path)
    assert done.strip() == f"{tmp_path}/studies/small/results.csv: 4 runs"
    header, *rows = (line.split(",") for line in (tmp_path / "studies/small/results.csv").read_text().splitlines())
    at = [header.index(name) for name in ("ranks", "nodes", "backend", "samples")]
    assert sorted(tuple(row[place] for place in at) for row in rows) == [
        (ranks, ranks, backend, "48") for ranks in ("1", "2") for backend in ("gloo", "mpi")
    ]
    assert node.run("study", "submit", path).strip() == "4 runs: 4 complete, 0 queued, nothing is left to submit"
    # One more repeat, by submitit: a job for each run.
    more = re.findall(
        r"(?m)^job (\d+): train \S+_repeat=2,", node.run("study", "submit", path, "repeats=2", "--via=submitit")
    )
    assert len(more) == 4
    for job in more:
        cluster.wait_for(job, "COMPLETED", timeout_s=300)
    assert node.run("study", "collect", path, "repeats=2").strip().endswith("results.csv: 8 runs")
