"""`matsci-hpc check` on a login node of this cluster: what Slurm itself says of a job, which is never queued."""

import json
import sys

import pytest
from site_file import write_site


@pytest.fixture
def place(cluster, tmp_path):
    folder = cluster.base / "check"
    folder.mkdir(exist_ok=True)
    config = {"source": {"kind": "symmetry", "samples": 90}, "out": str(folder / "data"), "neighbors": {"cutoff": 2}}
    (folder / "prep.yaml").write_text(json.dumps(config | {"shard_size": 10}))
    assert tmp_path
    return folder


def check(cluster, folder, *options, **site):
    words = ["prep.yaml", "--site", write_site(folder / "site.yaml", **site), *options, "--json"]
    program = [sys.executable, "-m", "matsci_hpc", "check", folder / words[0], *words[1:]]
    done = cluster.start(*program)
    assert done.stdout, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    (finding,) = [each for each in run["findings"] if each["topic"] == "scheduler"]
    return done.returncode, finding


def test_a_job_that_can_run(cluster, place):
    code, finding = check(cluster, place, "--nodes", "2")
    assert (code, finding["level"]) == (0, "ok")
    assert "Slurm takes the job: Job " in finding["text"]
    assert " to start at " in finding["text"]
    assert not cluster.run("squeue", "--noheader")


@pytest.mark.parametrize(
    ("options", "site", "words"),
    [
        (["--nodes", "3"], {}, "node configuration is not available"),
        (["--nodes", "1"], {"memory": "900G"}, "configuration is not available"),
        (["--nodes", "1"], {"partition": "nosuch"}, "invalid partition"),
        (["--nodes", "1"], {"options": ["--constraint=nosuch"]}, "Invalid feature"),
    ],
)
def test_an_impossible_request(options, site, words, cluster, place):
    code, finding = check(cluster, place, *options, **site)
    assert (code, finding["level"]) == (2, "error")
    assert finding["text"].startswith("Slurm refuses the job: ")
    assert words.lower() in finding["text"].lower()
    assert not cluster.run("squeue", "--noheader")
    assert not (place / "data").exists()
