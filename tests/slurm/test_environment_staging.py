"""A packed environment, copied by sbcast to the disk of each node, and ranks that train from there."""

import json
import subprocess
import sys
import tarfile
import venv

import pytest
from launching import LoginNode, steps_logged, wait_for_restarts, wait_for_steps
from ranks import ROOT, environment
from slurm_conf import NODES

FOR_EVER = 1_000_000

PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
TELLS = """
import importlib.util, os
if "SLURM_PROCID" in os.environ:
    origin = importlib.util.find_spec("matsci_hpc").origin
    print("rank", os.environ["SLURM_PROCID"], "on", os.uname()[1], origin, flush=True)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An environment that holds matsci-hpc; torch stays where it is, for a gigabyte is not copied for this."""
    folder = tmp_path_factory.mktemp("packed")
    venv.EnvBuilder(symlinks=True).create(folder / "env")
    site_packages = folder / "env" / PACKAGES
    elsewhere = [path for path in sys.path if path.endswith("site-packages")]
    (site_packages / "needed.pth").write_text("\n".join(elsewhere) + "\n")
    (site_packages / "tells.pth").write_text("import tells\n")
    (site_packages / "tells.py").write_text(TELLS)
    (site_packages / "matsci_hpc.pth").write_text(f"{ROOT}\n")
    words = (folder / "env/bin/python", "-m", "matsci_hpc", "site", "pack", folder / "my env.tar")
    subprocess.run(list(map(str, words)), env=environment(PYTHONPATH=""), cwd="/", check=True, timeout=300)
    (folder / "env").rename(folder / "gone")
    return folder / "my env.tar"


@pytest.fixture
def node(cluster, tmp_path, archive):
    login = LoginNode(
        cluster, tmp_path, ranks_per_node=1, environment_archive=str(archive), node_local=str(cluster.node_local)
    )
    site = json.loads(login.site.read_text())
    # The source tree, which the tests have on the path, is not what is to be run.
    login.site.write_text(json.dumps(site | {"environment": site["environment"] | {"PYTHONPATH": ""}}))
    return login


def staged(cluster):
    """What lies on the disks of the nodes."""
    return [path for name in NODES for path in (cluster.base / f"nodelocal.{name}").glob("matsci-env-*")]


def test_ranks_train_from_the_disk_of_their_node(node, cluster):
    node.run("prep", node.prep_config())
    (job,) = node.submit(node.train_config("datasets/clouds"), "--nodes", 2)
    cluster.wait_for(job, "COMPLETED")
    package = f"{cluster.node_local}/matsci-env-{job}/{PACKAGES}/matsci_hpc/__init__.py"
    log = cluster.log(job)
    assert {f"rank {rank} on {name} {package}" for rank, name in enumerate(NODES)} <= set(log.splitlines())
    assert steps_logged(node.folder / "runs/run")[-1]["ranks"] == 2
    assert staged(cluster) == []


def test_the_next_life_stages_anew(node, cluster):
    node.run("prep", node.prep_config())
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"signal_before_end_s": 15}))
    config = node.train_config("datasets/clouds", steps=FOR_EVER)
    (job,) = node.submit(config, "--nodes", 2, "--time", "00:01:00")
    wait_for_restarts(cluster, job, 1)
    wait_for_steps(cluster, job, node.folder / "runs/run", 1)
    assert {path.parent.name for path in staged(cluster)} == {f"nodelocal.{name}" for name in NODES}
    (node.folder / "runs/run/STOP").touch()
    cluster.wait_for(job, "COMPLETED")
    assert staged(cluster) == []


def test_an_archive_that_is_broken_ends_the_job_with_a_word(node, cluster, archive, tmp_path):
    node.run("prep", node.prep_config())
    broken = tmp_path / "broken.tar"
    with tarfile.open(archive) as whole:
        largest = max(whole.getmembers(), key=lambda member: member.size)
    # Within a file: of an archive that ends between two, tar says nothing.
    broken.write_bytes(archive.read_bytes()[: largest.offset_data + largest.size // 2])
    node.site.write_text(json.dumps(json.loads(node.site.read_text()) | {"environment_archive": str(broken)}))
    (job,) = node.submit(node.train_config("datasets/clouds"), "--nodes", 2)
    cluster.wait_for(job, "FAILED")
    assert str(node.standings()[job]["state"]).startswith("failed: the environment did not reach every node")
    assert staged(cluster) == []
