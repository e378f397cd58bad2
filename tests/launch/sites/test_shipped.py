import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.describe import divide
from matsci_hpc.launch.job import Job
from matsci_hpc.launch.sites.find import load_site, site_names, site_path
from matsci_hpc.launch.sites.model import NodeKind, limit_in_seconds
from matsci_hpc.preflight.quick import refuse_impossible

GENERIC = {"local", "slurm_cpu", "slurm_gpu", "pbs", "lsf", "flux"}
"""No machine of anybody's: there is no page to cite."""
ONE_SIZE = JobRequest(nodes=2)
NAMED = sorted(set(site_names()) - GENERIC)


@pytest.mark.parametrize("name", site_names())
def test_every_site_has_one_line_about_itself(name):
    about = load_site(name).description
    assert about
    assert "\n" not in about


@pytest.mark.parametrize("name", NAMED)
def test_figures_have_a_source(name):
    pages = [urlsplit(page) for page in load_site(name).documentation]
    assert pages
    assert {(page.scheme, bool(page.netloc)) for page in pages} == {("https", True)}


@pytest.mark.parametrize("name", NAMED)
def test_numbers_fit_each_other(name):
    site = load_site(name)
    assert site.cores_per_node is not None
    assert site.ranks_per_node * site.cpus_per_rank <= site.cores_per_node
    assert site.ranks_per_node * site.gpus_per_rank <= (site.gpus_per_node or 0)
    assert site.time_limit is not None
    if site.max_time_limit is not None:
        assert limit_in_seconds(site.time_limit) <= limit_in_seconds(site.max_time_limit)


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"slurm_sapphire_rapids"}))
def test_jobs_of_a_centre_need_an_account(name):
    site = load_site(name)
    with pytest.raises(UserInputError, match="charges every job to an account"):
        refuse_impossible([], site)
    refuse_impossible([], site.model_copy(update={"account": "abc123"}))


@pytest.mark.parametrize("name", [name for name in site_names() if load_site(name).wrapper])
def test_a_wrapper_runs_its_program_and_keeps_the_arguments(name):
    program = [
        sys.executable,
        "-c",
        "import os, sys; print(os.environ['ROCR_VISIBLE_DEVICES'], sys.argv[1:])",
        "a b",
        "$x",
    ]
    answer = subprocess.run(
        [*load_site(name).wrapper, *program], env={"SLURM_LOCALID": "3"}, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "3 ['a b', '$x']\n"


def test_masks_of_lumi_are_the_cores_of_its_ranks():
    site = load_site("lumi_g")
    masks = [int(mask, 16) for mask in site.binding[0].partition("mask_cpu:")[2].split(",")]
    cores = [{core for core in range(64) if mask >> core & 1} for mask in masks]
    assert [len(each) for each in cores] == [site.cpus_per_rank] * site.ranks_per_node
    assert len(set().union(*cores)) == site.cores_per_node
    # Memory domains of ranks 0 and 1, 2 and 3, ..., 16 cores each: those of their GPUs.
    assert [{core // 16 for core in each} for each in cores] == [{3}, {3}, {1}, {1}, {0}, {0}, {2}, {2}]
    assert not any(core % 8 == 0 for each in cores for core in each)


def test_list_of_aurora_leaves_out_the_cores_of_the_system():
    site = load_site("aurora")
    ranges = [part.split("-") for part in site.binding[0].partition("list:")[2].split(":")]
    cores = [set(range(int(first), int(last) + 1)) for first, last in ranges]
    assert [len(each) for each in cores] == [site.cpus_per_rank] * site.ranks_per_node
    assert not {0, 52} & set().union(*cores)
    assert len(set().union(*cores)) == site.cpus_per_rank * site.ranks_per_node
    assert [{core // 52 for core in each} for each in cores] == [{0}] * 6 + [{1}] * 6


def test_workers_of_oneccl_have_the_last_core_of_each_rank():
    site = load_site("slurm_sapphire_rapids")
    workers = [int(core) for core in site.environment["CCL_WORKER_AFFINITY"].split(",")]
    assert workers == [(rank + 1) * site.cpus_per_rank - 1 for rank in range(site.ranks_per_node)]
    assert int(site.environment["OMP_NUM_THREADS"]) == site.cpus_per_rank - int(site.environment["CCL_WORKER_COUNT"])


@pytest.mark.parametrize("name", [name for name in site_names() if load_site(name).scheduler == "slurm"])
def test_scripts_are_accepted_by_shellcheck(name, tmp_path):
    script = rendered(load_site(name), tmp_path)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    # SC1091: a site's own script is not here.

    words = [Path(sys.executable).parent / "shellcheck", "--exclude=SC1091", "-"]
    answer = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("perlmutter_gpu", ["--cpus-per-task=32", "--gpus-per-node=4", "--constraint=gpu", "--qos=regular"]),
        ("frontier", ["--cpus-per-task=7", "--ntasks-per-node=8", "--constraint=nvme"]),
        ("juwels_booster", ["--cpus-per-task=12", "--gres=gpu:4", "--partition=booster"]),
        ("lumi_c", ["--cpus-per-task=16", "--mem=0", "--partition=standard"]),
    ],
)
def test_directives_are_those_of_the_centre(name, lines, tmp_path):
    directives = [line for line in rendered(load_site(name), tmp_path).splitlines() if line.startswith("#SBATCH")]
    for line in lines:
        assert f"#SBATCH {line}" in directives
    if name != "perlmutter_gpu":
        assert not any("gpus-per-node" in line for line in directives)


def test_threads_are_cores_where_slurm_counts_hardware_threads(tmp_path):
    script = rendered(load_site("perlmutter_cpu"), tmp_path)
    assert "#SBATCH --cpus-per-task=32" in script
    assert "export OMP_NUM_THREADS=16" in script


def test_a_job_of_unequal_nodes_counts_hardware_threads_too(tmp_path):
    kinds = {"gpu": NodeKind(ranks_per_node=2, cpus_per_rank=8), "cpu": NodeKind(ranks_per_node=4, cpus_per_rank=3)}
    site = load_site("perlmutter_cpu").model_copy(update={"node_kinds": kinds})
    script = rendered(site, tmp_path, JobRequest(nodes={"gpu": 1, "cpu": 1}))
    assert [line for line in script.splitlines() if "--cpus-per-task" in line and line.startswith("#")] == [
        "#SBATCH --cpus-per-task=16",
        "#SBATCH --cpus-per-task=6",
    ]
    assert "--het-group=0 --cpus-per-task=16" in script
    assert "--het-group=1 --cpus-per-task=6" in script
    assert "ROCR_VISIBLE_DEVICES OMP_NUM_THREADS=3 MKL_NUM_THREADS=3" in script


def test_site_file_ships_as_it_stands():
    for name in site_names():
        assert site_path(name).read_text().isascii()


def rendered(site, folder, request=ONE_SIZE):
    from matsci_hpc.launch.schedulers import SCHEDULERS
    from matsci_hpc.launch.script import render

    job = Job(
        name="demo",
        verb="train",
        config=folder / "demo.yaml",
        work_dir=folder,
        output=folder / "it's a run",
        components=divide(request, site),
        time_limit=site.time_limit,
        python=folder / "venv/bin/python",
    )
    return render(job, site, SCHEDULERS[site.scheduler])
