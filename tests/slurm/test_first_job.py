"""The page on a first job, followed literally on a login node; what is left out is the installation and patience."""

import re
import shlex

import pytest
from cluster import OVER
from launching import LoginNode, wait_until
from ranks import ROOT

PAGE = (ROOT / "docs/first_job.md").read_text(encoding="utf-8")
BLOCKS = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)]
PATIENCE = {"data_prep/symmetry_demo.yaml": "source.samples=400", "job_templates/runs/demo.yaml": "steps=20"}
MPI = {"OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_osc": "^ucx"}
"""What this cluster without a network needs; a real one has modules."""


@pytest.fixture
def node(cluster, tmp_path):
    node = LoginNode(cluster, tmp_path)
    node.site.unlink()
    return node


def words_of(line):
    """The words behind `matsci-hpc`, with less to do."""
    program, *words = shlex.split(line)
    assert program == "matsci-hpc"
    return [each for word in words for each in (word, *([PATIENCE[word]] if word in PATIENCE else []))]


def follow(node, lines):
    return [node.run(*words_of(line)) for line in lines]


def let_it_fit(path):
    """Ranks of one core, since this machine has two, and the test cluster's MPI."""
    variables = "".join(f"  {name}: {value}\n" for name, value in MPI.items())
    path.write_text(path.read_text().replace("cpus_per_rank: 4", "cpus_per_rank: 1") + f"environment:\n{variables}")


def on(site, nodes, lines):
    """The same commands for another site."""
    return [line.replace("my_cluster.yaml", site).replace("--nodes 2", f"--nodes {nodes}") for line in lines]


@pytest.mark.parametrize(("block", "site", "nodes"), [(1, "my_cluster.yaml", 2), (2, "my_gpus.yaml", 1)])
def test_the_first_job_on_slurm(block, site, nodes, node, cluster):
    new, check = BLOCKS[block]
    node.run(*words_of(new), "--yes")
    let_it_fit(node.folder / site)
    follow(node, [check])
    dry, _ = follow(node, on(site, nodes, BLOCKS[4]))
    assert dry.count("#!/bin/bash\n") == 3
    assert not (node.folder / "runs").exists()
    said, listed = follow(node, on(site, nodes, BLOCKS[5]))
    jobs = re.findall(r"^job (\d+):", said, flags=re.MULTILINE)
    assert len(jobs) == 3
    assert len(listed.splitlines()) == 4
    wait_until(lambda: all(cluster.job(job)["JobState"] in OVER for job in jobs), "the jobs are over", 400)
    assert {row["state"] for row in node.standings().values()} == {"complete"}, node.run("jobs")
    assert (node.folder / "runs/demo/report.html").stat().st_size > 1e6


def test_the_first_job_on_pbs_as_far_as_a_machine_without_it_goes(node):
    new, _ = BLOCKS[3]
    node.run(*words_of(new), "--yes")
    dry, _ = on("my_pbs.yaml", 2, BLOCKS[4])
    (said,) = follow(node, [dry])
    assert said.count("#PBS -l select=2:") == 2
    assert "# submitted by: qsub -W 'depend=afterok:<symmetry_demo>' " in said
