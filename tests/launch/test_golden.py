"""Every script as it is written today. UPDATE_GOLDEN=1 pytest tests/launch writes a wanted change; read the diff."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from matsci_hpc import __version__
from matsci_hpc.config.job import JobRequest
from matsci_hpc.launch.chain import make_chain
from matsci_hpc.launch.describe import divide
from matsci_hpc.launch.job import Component, Element, Job, Need
from matsci_hpc.launch.local import run_chain_here
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.script import render
from matsci_hpc.launch.script_desk import ScriptDesk
from matsci_hpc.launch.sites.find import load_site, site_names
from matsci_hpc.launch.sites.model import Site

GOLDEN = Path(__file__).parent / "golden"
ALL = tuple(SCHEDULERS)

RUN = Path("/scratch/ada/demo")
CONTAINER = {"image": "/scratch/images/matsci hpc.sif", "options": ["--nv", "--bind=/scratch"]}
EVERYTHING = {
    "account": "abc123",
    "setup": ["source /etc/profile.d/modules.sh", "module load openmpi"],
    "environment": {"FI_PROVIDER": "cxi", "NOTE": "it's $HOME\non two lines"},
    "binding": ["--bind-to=core"],
    "node_local": "$LOCAL_SCRATCH",
    "master_address_suffix": "i",
    "signal_before_end_s": 300,
    "max_lives": 7,
}
BIG = {
    "cpus_per_rank": 8,
    "gpus_per_rank": 1,
    "partition": "gpu",
    "options": ("--exclusive",),
    "time_limit": "1-12:00:00",
    "overrides": ("steps=10", "data.train=[a, b]"),
}
ELEMENTS = tuple(
    Element(overrides=(f"seed={i}", f"run_dir='{RUN / f'seed={i}'}'"), output=RUN / f"seed={i}") for i in range(2)
)
MIXED = (
    Component(kind="gpu", nodes=1, ranks_per_node=4, gpus_per_rank=1, cpus_per_rank=8, partition="gpu"),
    Component(kind="cpu", nodes=2, ranks_per_node=8, partition="cpu", options=("--exclusive",), speed=0.1),
)

# Case to job, site and the schedulers that can do it.
CASES = {
    "train_plain": ({}, {}, ALL),
    "train_everything": (BIG, EVERYTHING, ALL),
    "train_chained": (
        {
            "time_limit": "04:00:00",
            "needs": (
                Need(marker=Path("/scratch/ada/my data/dataset.json"), status=Path("/scratch/ada/my data.status")),
                Need(marker=Path("/scratch/ada/base/DONE"), status=Path("/scratch/ada/base/job.status")),
            ),
            "has_dependents": True,
        },
        {},
        ALL,
    ),
    "train_container": ({"gpus_per_rank": 1}, {"container": CONTAINER}, ALL),
    "prep": (
        {"verb": "prep", "name": "symmetry", "output": Path("/scratch/ada/data sets"), "time_limit": "00:30:00"},
        {},
        ALL,
    ),
    "report": (
        {
            "verb": "report",
            "name": "demo-report",
            "config": RUN,
            "nodes": 1,
            "ranks_per_node": 1,
            "needs": (Need(marker=RUN / "DONE", status=RUN / "job.status"),),
        },
        {},
        ALL,
    ),
    "prep_mpirun": ({"verb": "prep", "name": "symmetry"}, {"launcher": "mpirun --bind-to core"}, ("slurm",)),
    "train_array": ({"elements": ELEMENTS}, {}, ("slurm",)),
    "train_mixed": ({"components": MIXED}, {"launcher": "srun --mpi=pmix"}, ("slurm",)),
    "train_staged": ({}, {"environment_archive": "/scratch/ada/my env.tar", "node_local": "/mnt/nvme"}, ("slurm",)),
    "train_jsrun": (
        {"gpus_per_rank": 1, "time_limit": "02:00:00"},
        {"launcher": "jsrun -n {ranks} -r {ranks_per_node} -a 1 -c {cpus_per_rank} -g {gpus_per_rank}"},
        ("lsf",),
    ),
}
SCRIPTS = [(name, case) for case, (_, _, names) in CASES.items() for name in names]


def script_of(name, case, make_job, make_site):
    job, site, _ = CASES[case]
    if name == "slurm" and case == "train_everything":
        job, site = job | {"memory": "120G"}, site | {"qos": "long", "account": "abc 123"}
    return render(make_job(**job), make_site(scheduler=name, **site), SCHEDULERS[name])


def compare(text, golden):
    """A new version of the package is no change of its scripts."""
    text = text.replace(f"matsci-hpc {__version__}:", "matsci-hpc VERSION:")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.exists(), f"no {golden}: UPDATE_GOLDEN=1 pytest tests/launch writes it"
    assert text == golden.read_text()


@pytest.mark.parametrize(("name", "case"), SCRIPTS)
def test_script_is_the_golden_one(name, case, make_job, make_site):
    golden = GOLDEN / f"{name}_{case}{SCHEDULERS[name].suffix}"
    compare(script_of(name, case, make_job, make_site), golden)


@pytest.mark.parametrize(("name", "case"), SCRIPTS)
def test_the_shell_and_shellcheck_have_nothing_to_say(name, case, tmp_path, make_job, make_site):
    path = tmp_path / "script"
    path.write_text(script_of(name, case, make_job, make_site))
    refuse_bad_bash(path)


def refuse_bad_bash(path):
    subprocess.run(["bash", "-n", path], check=True)
    # SC1091: the site's own script is not here. SC2016: single quotes are there to prevent expansion.
    answer = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", "--exclude=SC1091,SC2016", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


def site_job(site: Site) -> Job:
    """The same run everywhere, of the size that the site itself names."""
    kinds = {"nodes": dict.fromkeys(site.node_kinds, 1)} if site.node_kinds else {}
    return Job(
        name="demo",
        verb="train",
        config=Path("/home/ada/demo.yaml"),
        work_dir=Path("/home/ada"),
        output=RUN,
        components=divide(JobRequest.model_validate(kinds), site),
        time_limit=site.time_limit,
        python=Path("/opt/venv/bin/python"),
    )


@pytest.mark.parametrize("name", site_names())
def test_every_shipped_site_writes_its_golden_script(name, tmp_path, capsys):
    site = load_site(name)
    if site.account_required and site.account is None:
        site = site.model_copy(update={"account": "abc123"})
    job = site_job(site)
    if site.scheduler == "local":
        run_chain_here(make_chain([job]), site, dry_run=True)
        # Cores, MPI and its needs are those of the machine that the test runs on.
        text = re.sub(r"(OMP|MKL)_NUM_THREADS=\d+", r"\1_NUM_THREADS=CORES", capsys.readouterr().out)
        text = re.sub(r"OMPI_\S+ |(?<= )\S+/(?=mpirun )|(?<=-n 2 ).*(?=/opt/venv/bin/python )", "", text)
        compare(text, GOLDEN / "sites" / f"{name}.sh")
        return
    scheduler = SCHEDULERS[site.scheduler]
    text = ScriptDesk(scheduler).preview(job, site, [])
    compare(text, GOLDEN / "sites" / f"{name}{scheduler.suffix}")
    path = tmp_path / "script"
    path.write_text(text)
    refuse_bad_bash(path)


@pytest.mark.parametrize("name", site_names())
def test_every_shipped_site_says_what_it_is(name):
    assert load_site(name).description


def test_no_golden_file_is_left_over():
    expected = {f"{name}_{case}{SCHEDULERS[name].suffix}" for name, case in SCRIPTS}
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == expected
    assert {path.stem for path in (GOLDEN / "sites").iterdir()} == set(site_names())
