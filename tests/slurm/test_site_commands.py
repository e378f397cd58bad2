"""`matsci-hpc site new` and `site check` as on a login node of a cluster that answers."""

import json
import re
import sys

import pytest
from terminal import talk

from matsci_hpc.launch.sites.find import load_site


@pytest.fixture
def site(cluster):
    """Run `matsci-hpc site ...`: exit code and all that it said."""

    def run(*words):
        done = cluster.start(sys.executable, "-m", "matsci_hpc", "site", *words)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def check(site, tmp_path):
    """Check a site of these keys."""

    def run(**keys):
        path = tmp_path / "checked.yaml"
        path.write_text(json.dumps({"scheduler": "slurm"} | keys))
        code, said = site("check", path)
        return code, said, {line[9:22].strip(): line[:9].strip() for line in said.splitlines()}

    return run


def test_a_new_site_passes_its_check(site, tmp_path):
    path = tmp_path / "mine.yaml"
    assert site("new", path, "--yes")[0] == 0
    made = load_site(str(path))
    assert (made.partition, made.launcher) == ("debug", "srun --mpi=pmix")
    assert (made.ranks_per_node, made.cpus_per_rank, made.cores_per_node) == (1, 4, 4)
    assert (made.time_limit, made.max_time_limit, made.memory_per_node) == ("01:00:00", "01:00:00", "4000M")
    code, said = site("check", path)
    assert code == 0, said
    assert "error" not in said
    assert "to start at" in said  # sbatch --test-only


def test_a_new_site_for_gpus_has_a_rank_for_each(site, tmp_path):
    path = tmp_path / "mine.yaml"
    assert site("new", path, "--yes", "--partition", "gpu")[0] == 0
    made = load_site(str(path))
    assert (made.ranks_per_node, made.cpus_per_rank, made.gpus_per_rank, made.gpus_per_node) == (2, 2, 1, 2)
    code, said = site("check", path)
    assert code == 0, said


def test_on_a_terminal_it_shows_the_partitions_and_suggests(cluster, tmp_path):
    path = tmp_path / "mine.yaml"
    # Scheduler, partition, account, time limit, ranks, cores, GPUs, launcher, setup lines. An empty line agrees.
    typed = ["", "gpu", "", "00:30:00", "", "", "", "", "", ""]
    said = talk([sys.executable, "-m", "matsci_hpc", "site", "new", path], typed, cluster.environment)
    assert "gpu          1 h; nodes: 1 of 4 cores, 4 GB, 2 GPUs" in said
    made = load_site(str(path))
    assert (made.partition, made.account, made.time_limit) == ("gpu", None, "00:30:00")
    assert (made.ranks_per_node, made.cpus_per_rank, made.gpus_per_rank) == (2, 2, 1)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"partition": "nope"}, "no partition nope\n.*choose one of debug, cpu, gpu, low, high"),
        ({"ranks_per_node": 5}, "a node needs 5 CPUs; debug has 4"),
        ({"memory": "5G"}, "a node needs 5,120 MB of memory; debug has 4,000"),
        ({"partition": "cpu", "gpus_per_rank": 1}, "a node needs 1 GPUs; cpu has 0"),
        ({"time_limit": "02:00:00"}, "time_limit 02:00:00 is more than debug grants, 01:00:00"),
        ({"launcher": "srun --mpi=nope"}, "srun does not know --mpi=nope\n.*choose one of .*pmix"),
        ({"options": ["--constraint=nope"]}, "sbatch --test-only refuses a job of one node: .*feature"),
        ({"node_kinds": {"gpu": {"partition": "cpu", "gpus_per_rank": 1}}}, "a node needs 1 GPUs; cpu has 0"),
        ({"setup": ["module load nope"]}, "in `module load nope`: .*command not found"),
    ],
)
def test_what_would_fail_is_found(keys, says, check):
    code, said, _ = check(**keys)
    assert code == 2
    assert re.search(says, said), said


def test_a_part_of_the_nodes_is_a_warning(check):
    code, said, levels = check(gpus_per_rank=1)
    assert (code, levels["node size"]) == (0, "warning")
    assert "nodes of debug that have 1 CPUs, 1 GPUs: 1 of 2" in said


def test_without_accounting_it_says_that_it_cannot_look(check):
    code, _, levels = check(account="abc123", qos="normal")
    assert (code, levels["account"]) == (0, "note")


def test_slurm_that_does_not_answer(site, tmp_path, monkeypatch, cluster):
    monkeypatch.delitem(cluster.environment, "SLURM_CONF")
    (tmp_path / "mine.yaml").write_text("scheduler: slurm\n")
    code, said = site("check", tmp_path / "mine.yaml")
    assert code == 2
    assert "sinfo does not answer" in said


def test_the_test_submission_submits_nothing(check, cluster):
    before = cluster.run("squeue", "--noheader", "--states=all", "--format=%i")
    assert check()[0] == 0
    assert cluster.run("squeue", "--noheader", "--states=all", "--format=%i") == before


def test_a_wrapper_shows_each_rank_its_gpu(cluster):
    wrapper = load_site("lumi_g").wrapper
    said = cluster.run("srun", "--ntasks=2", *wrapper, "printenv", "ROCR_VISIBLE_DEVICES")
    assert sorted(said.split()) == ["0", "1"]


def test_gpus_can_be_asked_for_by_gres(check):
    code, said, _ = check(partition="gpu", ranks_per_node=2, gpus_per_rank=1, gpu_request="gres")
    assert code == 0, said
    code, said, _ = check(partition="gpu", ranks_per_node=2, gpus_per_rank=1, cpus_per_rank=1, cpus_per_core=3)
    assert (code, "a node needs 6 CPUs; gpu has 4" in said) == (2, True)
