"""What each scheduler is told, and how its answers are read: one row for each aspect, one column for each scheduler."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.job import Component
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.schedulers.base import QueueState
from matsci_hpc.launch.script import render

MARKS = {"slurm": "#SBATCH", "pbs": "#PBS", "lsf": "#BSUB", "flux": "# flux:"}
HOSTILE = "50% \"of\" 'it' # $(x) `x`"


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """A wish, and the directive by which each scheduler is told; None where it has no word for it."""

    job: dict[str, Any] = field(default_factory=dict)
    site: dict[str, Any] = field(default_factory=dict)
    slurm: str | None
    pbs: str | None
    lsf: str | None
    flux: str | None


ASPECTS = {
    "name": Aspect(slurm="--job-name=demo", pbs="-N demo", lsf="-J demo", flux="--job-name=demo"),
    "name of words": Aspect(
        job={"name": "two words"},
        slurm='--job-name="two words"',
        pbs="-N two_words",
        lsf="-J two_words",
        flux="--job-name=two_words",
    ),
    "hostile name": Aspect(
        job={"name": HOSTILE},
        slurm='--job-name="50% \\"of\\" \'it\' # $(x) `x`"',
        pbs="-N 50___of___it______x___x_",
        lsf="-J 50___of___it______x___x_",
        flux="--job-name=50___of___it______x___x_",
    ),
    "account": Aspect(site={"account": "abc"}, slurm="--account=abc", pbs="-A abc", lsf="-P abc", flux="--bank=abc"),
    "partition": Aspect(
        job={"partition": "big"}, slurm="--partition=big", pbs="-q big", lsf="-q big", flux="--queue=big"
    ),
    "quality of service": Aspect(site={"qos": "debug"}, slurm="--qos=debug", pbs=None, lsf=None, flux=None),
    "nodes": Aspect(
        job={"nodes": 512},
        slurm="--nodes=512",
        pbs="-l select=512:ncpus=4:mpiprocs=4:ompthreads=1",
        lsf="-n 2048",
        flux="--nodes=512",
    ),
    "distinct nodes": Aspect(slurm="--nodes=2", pbs="-l place=scatter", lsf='-R "span[ptile=4]"', flux="--nodes=2"),
    "ranks per node": Aspect(
        job={"ranks_per_node": 3},
        slurm="--ntasks-per-node=3",
        pbs="-l select=2:ncpus=3:mpiprocs=3:ompthreads=1",
        lsf='-R "span[ptile=3]"',
        flux="--nslots=6",
    ),
    "cores": Aspect(
        job={"cpus_per_rank": 9},
        slurm="--cpus-per-task=9",
        pbs="-l select=2:ncpus=36:mpiprocs=4:ompthreads=9",
        lsf='-R "span[ptile=4] affinity[core(9)]"',
        flux="--cores-per-slot=9",
    ),
    "GPUs": Aspect(
        job={"gpus_per_rank": 2},
        slurm="--gpus-per-node=8",
        pbs="-l select=2:ncpus=4:mpiprocs=4:ompthreads=1:ngpus=8",
        lsf='-gpu "num=8/host"',
        flux="--gpus-per-slot=2",
    ),
    "memory": Aspect(
        job={"memory": "120G"},
        slurm="--mem=120G",
        pbs="-l select=2:ncpus=4:mpiprocs=4:ompthreads=1:mem=120gb",
        lsf='-R "span[ptile=4] rusage[mem=120G/host]"',
        flux=None,
    ),
    "memory in MB": Aspect(
        job={"memory": "500"},
        slurm="--mem=500",
        pbs="-l select=2:ncpus=4:mpiprocs=4:ompthreads=1:mem=500mb",
        lsf='-R "span[ptile=4] rusage[mem=500M/host]"',
        flux=None,
    ),
    # Slurm's word for all of it; the others have none and are not asked.
    "all memory": Aspect(
        job={"memory": "0"},
        slurm="--mem=0",
        pbs="-l select=2:ncpus=4:mpiprocs=4:ompthreads=1",
        lsf='-R "span[ptile=4]"',
        flux="--nslots=8",
    ),
    "time": Aspect(
        job={"time_limit": "1-12:30:20"},
        slurm="--time=1-12:30:20",
        pbs="-l walltime=36:30:20",
        lsf="-W 36:31",
        flux="--time-limit=131420s",
    ),
    "early signal": Aspect(site={"signal_before_end_s": 77}, slurm="--signal=B:USR1@77", pbs=None, lsf=None, flux=None),
    "output": Aspect(
        slurm="--output=/scratch/ada/demo/slurm-%j.out",
        pbs="-o /scratch/ada/demo/job.pbs.out",
        lsf="-o /scratch/ada/demo/lsf-%J.out",
        flux="--output=/scratch/ada/demo/job.flux.out",
    ),
    "output of a preparation": Aspect(
        job={"verb": "prep"},
        slurm="--output=/scratch/ada/slurm-%j.out",
        pbs="-o /scratch/ada/demo.pbs.out",
        lsf="-o /scratch/ada/lsf-%J.out",
        flux="--output=/scratch/ada/demo.flux.out",
    ),
    "one file for errors too": Aspect(slurm="--open-mode=append", pbs="-j oe", lsf=None, flux=None),
    "runs again after a node is lost": Aspect(slurm="--requeue", pbs="-r y", lsf="-r", flux=None),
    "starts itself again": Aspect(slurm="--requeue", pbs=None, lsf='-Q "99"', flux=None),
    "bash": Aspect(slurm=None, pbs="-S /bin/bash", lsf=None, flux=None),
    "option": Aspect(
        job={"options": ("--exclusive",)},
        slurm="--exclusive",
        pbs="--exclusive",
        lsf="--exclusive",
        flux="--exclusive",
    ),
    "option of two words": Aspect(
        job={"options": ("--comment=a b",)},
        slurm='--comment="a b"',
        pbs="--comment=a b",
        lsf="--comment=a b",
        flux="--comment=a b",
    ),
}
ROWS = [
    (name, aspect, getattr(aspect, name))
    for aspect in ASPECTS.values()
    for name in SCHEDULERS
    if getattr(aspect, name) is not None
]


def lines(name, job, site):
    """The directives, without the mark that begins each of them."""
    mark = MARKS[name]
    found = SCHEDULERS[name].directives(job, site)
    assert all(line.startswith(f"{mark} ") for line in found)
    return [line.removeprefix(f"{mark} ") for line in found]


@pytest.mark.parametrize(("name", "aspect", "expected"), ROWS, ids=[f"{name}: {line}" for name, _, line in ROWS])
def test_directive(name, aspect, expected, make_job, make_site):
    assert expected in lines(name, make_job(**aspect.job), make_site(scheduler=name, **aspect.site))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_plain_job_has_no_other_directives(name, make_job, make_site):
    """What is not given is left to the cluster."""
    always = {
        "slurm": {
            "--job-name",
            "--nodes",
            "--ntasks-per-node",
            "--cpus-per-task",
            "--signal",
            "--output",
            "--open-mode",
        }
        | {"--requeue"},
        "pbs": {"-N", "-S", "-l", "-j", "-o", "-r"},
        "lsf": {"-J", "-n", "-R", "-o", "-r", "-Q"},
        "flux": {"--job-name", "--nodes", "--nslots", "--cores-per-slot", "--output"},
    }
    found = lines(name, make_job(), make_site(scheduler=name))
    assert {line.replace("=", " ").partition(" ")[0] for line in found if not line.startswith("-l ")} == always[
        name
    ] - {"-l"}
    assert [line for line in found if line.startswith("-l ")] == (
        ["-l select=2:ncpus=4:mpiprocs=4:ompthreads=1", "-l place=scatter"] if name == "pbs" else []
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_report_is_neither_warned_nor_started_again(name, make_job, make_site):
    found = lines(name, make_job(verb="report"), make_site(scheduler=name))
    assert not [line for line in found if line.startswith(("--signal", "-Q"))]


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "slurm"])
@pytest.mark.parametrize("folder", ["/a %j b", "/it's", "/a{{id}}", '/a"b', "/$HOME"])
def test_a_path_that_needs_quotes_stays_out_of_the_directives(name, folder, make_job, make_site):
    job = make_job(output=Path(folder))
    assert not [line for line in lines(name, job, make_site(scheduler=name)) if line.startswith(("-o", "--output"))]


def test_slurm_takes_any_path_on_one_line(make_job, make_site):
    assert '--output="/a %%j b/slurm-%j.out"' in lines("slurm", make_job(output=Path("/a %j b")), make_site())


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("bad", ["two\nlines", "a\rb", "tab\there", "back\\slash", "zero\0", "next\x85line"])
@pytest.mark.parametrize("place", ["account", "partition", "options"])
def test_what_no_directive_can_hold_is_refused(name, bad, place, make_job, make_site):
    job, site = make_job(), make_site(scheduler=name)
    if place == "account":
        site = make_site(scheduler=name, account=bad)
    else:
        job = make_job(**{place: (f"--x={bad}",) if place == "options" else bad})
    with pytest.raises(UserInputError, match=MARKS[name]):
        render(job, site, SCHEDULERS[name])


@pytest.mark.parametrize("bad", ["two\nlines", "back\\slash"])
@pytest.mark.parametrize("place", ["name", "output"])
def test_slurm_refuses_names_that_its_quotes_cannot_hold(bad, place, make_job, make_site):
    job = make_job(**{place: Path("/x") / bad if place == "output" else bad})
    with pytest.raises(UserInputError, match="#SBATCH"):
        render(job, make_site(), SCHEDULERS["slurm"])


@pytest.mark.parametrize("name", ["pbs", "lsf", "flux"])
@pytest.mark.parametrize("bad", ["a b", "$(x)", "it's", 'a"b', "a;b"])
def test_an_account_that_needs_quotes_is_refused(name, bad, make_job, make_site):
    with pytest.raises(UserInputError, match="more than letters"):
        lines(name, make_job(), make_site(scheduler=name, account=bad))


@pytest.mark.parametrize("name", ["pbs", "lsf", "flux"])
def test_words_of_slurm_are_refused_elsewhere(name, make_site):
    with pytest.raises(ValidationError, match="qos is a word of Slurm"):
        make_site(scheduler=name, qos="debug")


def test_flux_cannot_be_asked_for_memory(make_job, make_site):
    with pytest.raises(UserInputError, match="memory 120G: Flux hands out cores"):
        lines("flux", make_job(memory="120G"), make_site(scheduler="flux"))


@pytest.mark.parametrize("name", ["pbs", "lsf", "flux"])
def test_only_slurm_has_arrays_and_unequal_nodes(name, make_site):
    assert not SCHEDULERS[name].has_arrays
    with pytest.raises(ValidationError, match="node_kinds"):
        make_site(scheduler=name, node_kinds={"gpu": {}})


def test_slurm_sets_unequal_nodes_apart(make_job, make_site):
    components = (
        Component(kind="gpu", nodes=1, ranks_per_node=4, gpus_per_rank=1, partition="gpu", memory="80G"),
        Component(kind="cpu", nodes=2, ranks_per_node=8, cpus_per_rank=4, partition="cpu", options=("--exclusive",)),
    )
    found = lines("slurm", make_job(components=components), make_site())
    at = found.index("hetjob")
    assert {"--partition=gpu", "--nodes=1", "--gpus-per-node=4", "--mem=80G"} <= set(found[:at])
    assert found[at + 1 :] == [
        "--partition=cpu",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--cpus-per-task=4",
        "--exclusive",
    ]


def test_a_site_can_select_pbs_nodes_in_its_own_way(make_job, make_site):
    job = make_job(options=("-l select={nodes}:system=polaris:ncpus={ranks_per_node}", "-l place=excl"))
    found = lines("pbs", job, make_site(scheduler="pbs"))
    assert [line for line in found if line.startswith("-l ")] == [
        "-l select=2:system=polaris:ncpus=4",
        "-l place=excl",
    ]


@pytest.mark.parametrize("name", ["slurm", "pbs", "lsf"])
def test_gpus_that_come_with_the_node_are_not_asked_for(name, make_job, make_site):
    job = make_job(gpus_per_rank=1)
    assert any("gpu" in line for line in lines(name, job, make_site(scheduler=name)))
    assert not any("gpu" in line for line in lines(name, job, make_site(scheduler=name, gpu_request="none")))


def test_jsrun_gets_whole_nodes(make_job, make_site):
    site = make_site(scheduler="lsf", launcher="/opt/bin/jsrun -n {ranks} -r {ranks_per_node} -a 1 -g {gpus_per_rank}")
    job = make_job(gpus_per_rank=1, cpus_per_rank=7)
    found = lines("lsf", job, site)
    assert "-nnodes 2" in found
    assert not [line for line in found if line.startswith(("-n ", "-R", "-gpu"))]
    script = render(job, site, SCHEDULERS["lsf"])
    assert "/opt/bin/jsrun -n 8 -r 4 -a 1 -g 1 \\\n" in script
    # The first host is the launch node.
    assert "for (i = 3; i < NF; i += 2)" in script


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ("/opt/slurm/bin/srun --mpi=pmi2", '/opt/slurm/bin/srun --mpi=pmi2 --cpus-per-task="$SLURM_CPUS_PER_TASK" '),
        ("mpirun --bind-to core", "mpirun --bind-to core -n 8 \\\n"),
        ("mpiexec -n {ranks} --ppn {ranks_per_node}", "mpiexec -n 8 --ppn 4 \\\n"),
    ],
)
def test_launcher(launcher, expected, make_job, make_site):
    assert f"\n{expected}" in render(make_job(), make_site(launcher=launcher), SCHEDULERS["slurm"])


@pytest.mark.parametrize(
    ("name", "alone", "after"),
    [
        (
            "slurm",
            ["sbatch", "--parsable", "/x/job.sh"],
            ["sbatch", "--parsable", "--dependency=afterok:7:8", "--kill-on-invalid-dep=yes", "/x/job.sh"],
        ),
        ("pbs", ["qsub", "/x/job.sh"], ["qsub", "-W", "depend=afterok:7:8", "/x/job.sh"]),
        # The script is its standard input.
        ("lsf", ["bsub"], ["bsub", "-w", "done(7) && done(8)", "-ti"]),
        (
            "flux",
            ["flux", "batch", "/x/job.sh"],
            ["flux", "batch", "--dependency=afterok:7", "--dependency=afterok:8", "/x/job.sh"],
        ),
    ],
)
def test_submit_command(name, alone, after):
    scheduler = SCHEDULERS[name]
    assert scheduler.submit_command(Path("/x/job.sh"), []) == alone
    assert scheduler.submit_command(Path("/x/job.sh"), ["7", "8"]) == after
    assert scheduler.reads_stdin == ("/x/job.sh" not in alone)


@pytest.mark.parametrize(
    ("name", "answer", "number"),
    [
        ("slurm", "123\n", "123"),
        ("slurm", "123;cluster\n", "123"),
        ("slurm", "error\n", None),
        ("pbs", "123.pbs-01.example.org\n", "123.pbs-01.example.org"),
        ("pbs", "charged to abc\n123.srv\n", "123.srv"),
        ("pbs", "123\n", "123"),
        ("pbs", "qsub: no\n", None),
        ("pbs", "", None),
        ("lsf", "Job <123> is submitted to queue <normal>.\n", "123"),
        ("lsf", "hello\nJob <123> is submitted to default queue <normal>.\n", "123"),
        ("lsf", "Request aborted by esub. Job not submitted.\n", None),
        # Pairs from flux-core's own test: https://github.com/flux-framework/flux-core src/common/libutil/test/fluid.c
        ("flux", "ƒ1\n", "0"),
        ("flux", "fNH\n", "1234"),
        ("flux", "ƒ7YXq9G\n", "4294967295"),
        ("flux", "ƒuzzybunny\n", "6787342413402046"),
        ("flux", "1234\n", "1234"),
        ("flux", "flux-batch: ERROR\n", None),
        ("flux", "ƒ0OIl\n", None),
    ],
)
def test_job_id(name, answer, number):
    if number is None:
        with pytest.raises(ValueError, match=f"^{re.escape(answer)}$"):
            SCHEDULERS[name].job_id(answer)
    else:
        assert SCHEDULERS[name].job_id(answer) == number


SLURM_ANSWER = """1|RUNNING|None|1-01:00:02
2|PENDING|Dependency|0:00
3_0|COMPLETED|None|1:05
4+0|PENDING|Priority|0:00
4+1|PENDING|None|0:00
slurm_load_jobs error
"""
LSF_ANSWER = """1|RUN|3602 second(s)|-
2|PEND|-|Job dependency condition not satisfied;
3|EXIT|5 second(s)|-
4|DONE|6 second(s)|-
5|PSUSP|-|a|b
No job found
"""
PBS_ANSWER = r"""Job Id: 1.srv|Job_Name=demo|resources_used.walltime=01:00:02|job_state=R|comment=Job run at Thu
Job Id: 2.srv|Job_Name=a\\|job_state=H|depend=afterok:1.srv@srv|Hold_Types=s|Variable_List=A=job_state=R,B=1
Job Id: 3.srv|Job_Name=demo|job_state=F
Job Id: 4.srv|Job_Name=\|job_state=R|job_state=Q|comment=Can Never Run: needs a\|b
Job Id: 5.srv|job_state=H|Hold_Types=u
"""


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        (
            "slurm",
            SLURM_ANSWER,
            {
                "1": QueueState("running", "RUNNING", None, 90002),
                "2": QueueState("waiting", "PENDING", "Dependency", 0),
                "3_0": QueueState("ended", "COMPLETED", None, 65),
                "4": QueueState("waiting", "PENDING", "Priority", 0),
            },
        ),
        (
            "pbs",
            PBS_ANSWER,
            {
                "1.srv": QueueState("running", "RUNNING", None, 3602),
                "2.srv": QueueState("waiting", "HELD", "for another job"),
                "3.srv": QueueState("ended", "FINISHED"),
                "4.srv": QueueState("waiting", "QUEUED", "Can Never Run: needs a|b"),
                "5.srv": QueueState("waiting", "HELD"),
            },
        ),
        ("pbs", "", {}),
        (
            "lsf",
            LSF_ANSWER,
            {
                "1": QueueState("running", "RUNNING", None, 3602),
                "2": QueueState("waiting", "PEND", "Job dependency condition not satisfied;", None),
                "3": QueueState("ended", "EXIT", None, 5),
                "4": QueueState("ended", "DONE", None, 6),
                "5": QueueState("waiting", "PSUSP", "a|b", None),
            },
        ),
        (
            "flux",
            "1|RUN|3602.1\n2|DEPEND|0.0\n3|SCHED|\n4|COMPLETED|6.5\n5|TIMEOUT|60.0\nƒx|RUN|1\n",
            {
                "1": QueueState("running", "RUNNING", None, 3602),
                "2": QueueState("waiting", "DEPEND", "for another job", None),
                "3": QueueState("waiting", "SCHED", None, None),
                "4": QueueState("ended", "COMPLETED", None, 6),
                "5": QueueState("ended", "TIMEOUT", None, 60),
            },
        ),
    ],
)
def test_states(name, answer, expected):
    assert SCHEDULERS[name].states(answer) == expected


@pytest.mark.parametrize(
    ("name", "query", "cancel"),
    [
        ("slurm", "squeue --me", "scancel"),
        ("pbs", "qstat -f -F dsv 7 8", "qdel"),
        ("lsf", "bjobs -a -noheader -o", "bkill"),
        ("flux", "flux jobs -a --no-header", "flux cancel"),
    ],
)
def test_one_command_for_all_jobs(name, query, cancel):
    assert " ".join(SCHEDULERS[name].query_command(["7", "8"])).startswith(query)
    assert " ".join(SCHEDULERS[name].cancel_command(["7", "8"])) == f"{cancel} 7 8"
