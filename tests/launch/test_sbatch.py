import os
import subprocess
import sys
from pathlib import Path

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sbatch import directives, render

GOLDEN = Path(__file__).parent / "golden"

EVERYTHING = {
    "account": "abc 123",
    "partition": "gpu",
    "qos": "long",
    "options": ["--constraint=a100&nvme", "--exclusive"],
    "launcher": "srun --mpi=pmix --gpu-bind=closest",
    "setup": ["source /etc/profile.d/modules.sh", "module load openmpi"],
    "environment": {"FI_PROVIDER": "cxi", "NOTE": "it's $HOME"},
    "signal_before_end_s": 300,
    "max_lives": 7,
}

SCRIPTS = {
    "train_plain": ({}, {}),
    "train_everything": (
        {
            "cpus_per_rank": 8,
            "gpus_per_rank": 1,
            "time_limit": "1-12:00:00",
            "memory": "120G",
            "overrides": ("steps=10", "data.train=[a, b]"),
        },
        EVERYTHING,
    ),
    "prep_mpirun": (
        {"verb": "prep", "name": "symmetry", "run_dir": Path("/scratch/ada/data sets")},
        {"launcher": "mpirun --bind-to core"},
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_the_golden_one(name, make_job, make_site):
    job, site = SCRIPTS[name]
    script = render(make_job(**job), make_site(**site))
    golden = GOLDEN / f"{name}.sbatch"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(script)
    assert script == golden.read_text(), (
        "if the change is wanted: UPDATE_GOLDEN=1 pytest tests/launch, then read the diff"
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(name, make_job, make_site):
    job, site = SCRIPTS[name]
    # SC1091: the site's own script is not here. SC2016: single quotes are there to prevent expansion.
    answer = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", "--exclude=SC1091,SC2016", "-"],
        input=render(make_job(**job), make_site(**site)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("job", "site", "expected"),
    [
        ({}, {}, "--job-name=demo"),
        ({"name": "two words"}, {}, '--job-name="two words"'),
        ({"name": "50% \"of\" 'it' # $(x)"}, {}, '--job-name="50% \\"of\\" \'it\' # $(x)"'),
        ({"nodes": 512}, {}, "--nodes=512"),
        ({"ranks_per_node": 3}, {}, "--ntasks-per-node=3"),
        ({"cpus_per_rank": 9}, {}, "--cpus-per-task=9"),
        ({"gpus_per_rank": 2}, {}, "--gpus-per-node=8"),
        ({"memory": "0"}, {}, "--mem=0"),
        ({"time_limit": "00:30:00"}, {}, "--time=00:30:00"),
        ({}, {"account": "abc"}, "--account=abc"),
        ({}, {"partition": "cpu,big"}, "--partition=cpu,big"),
        ({}, {"qos": "debug"}, "--qos=debug"),
        ({}, {"signal_before_end_s": 77}, "--signal=B:USR1@77"),
        ({}, {}, "--output=/scratch/ada/demo/slurm-%j.out"),
        ({"run_dir": Path("/a %j b")}, {}, '--output="/a %%j b/slurm-%j.out"'),
        ({}, {}, "--open-mode=append"),
        ({}, {}, "--requeue"),
        ({}, {"options": ["--exclusive"]}, "--exclusive"),
        ({}, {"options": ["--comment=a b"]}, '--comment="a b"'),
    ],
)
def test_directive(job, site, expected, make_job, make_site):
    assert expected in directives(make_job(**job), make_site(**site))


@pytest.mark.parametrize("absent", ["account", "partition", "qos", "gpus-per-node", "mem", "time"])
def test_what_is_not_given_is_left_to_the_cluster(absent, make_job, make_site):
    assert not [line for line in directives(make_job(), make_site()) if line.startswith(f"--{absent}=")]


def test_preparation_needs_no_signal(make_job, make_site):
    assert not [line for line in directives(make_job(verb="prep"), make_site()) if "signal" in line]


@pytest.mark.parametrize("bad", ["two\nlines", "a\rb", "tab\there", "back\\slash", "zero\0", "next\x85line"])
@pytest.mark.parametrize("place", ["name", "run_dir", "partition", "options"])
def test_what_no_directive_can_hold_is_refused(bad, place, make_job, make_site):
    job, site = make_job(), make_site()
    if place == "name":
        job = make_job(name=bad)
    elif place == "run_dir":
        job = make_job(run_dir=Path("/x") / bad)
    else:
        site = make_site(**{place: [f"--x={bad}"] if place == "options" else bad})
    with pytest.raises(UserInputError, match="#SBATCH"):
        render(job, site)


def test_srun_gets_what_it_does_not_inherit(make_job, make_site):
    script = render(make_job(), make_site(launcher="/opt/slurm/bin/srun --mpi=pmi2"))
    assert '/opt/slurm/bin/srun --mpi=pmi2 --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1' in script
