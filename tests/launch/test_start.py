import os
from pathlib import Path

import pytest

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.journal import read_entries
from matsci_hpc.launch.start import Wish, start

TRAIN = "run_dir: runs/my run\nsteps: 3\ndata: {train: [datasets/sym]}\nbatch: {graphs: 4}\n"
PREP = "source: {kind: symmetry, samples: 9}\nout: datasets/sym\nneighbors: {cutoff: 2}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(TRAIN)
    Path("prep.yaml").write_text(PREP)
    Path("site.yaml").write_text("scheduler: slurm\nranks_per_node: 2\n")
    return tmp_path


@pytest.fixture
def sbatch(here, monkeypatch):
    """A function that puts an sbatch with the given behaviour first on PATH."""

    def install(text):
        path = here / "bin/sbatch"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

    return install


def submit(*configs, site="./site.yaml", dry_run=False, **wish):
    runs = [(Path(config), ()) for config in configs]
    return start(Wish(runs=runs, site=site, check=False, **wish), dry_run=dry_run)


@pytest.mark.parametrize(
    ("config", "script"), [("train.yaml", "runs/my run/job.sbatch"), ("prep.yaml", "datasets/sym.sbatch")]
)
def test_dry_run_prints_exactly_what_is_submitted(config, script, here, sbatch, capsys):
    assert submit(config, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert not (here / script).exists()
    sbatch('cp "${@: -1}" submitted; printf "%s\\n" "$@" > words; echo "1234;tiny"')
    assert submit(config) == 0
    text, command = printed.split("\n# submitted by: ")
    assert (here / "submitted").read_text() == (here / script).read_text() == text
    words = (here / "words").read_text().splitlines()
    assert words == ["--parsable", str(here / script)]
    assert command.startswith("sbatch --parsable ")
    said = capsys.readouterr().out
    assert said.startswith("job 1234: ")
    assert "slurm-1234.out" in said
    assert "matsci-hpc jobs" in said


def test_a_chain_is_submitted_in_order_and_remembered(here, sbatch, capsys):
    sbatch('echo "$*" >> words; grep -c . words')
    assert submit("train.yaml", "prep.yaml", report=True, after=["77"]) == 0
    lines = (here / "words").read_text().splitlines()
    after = "--dependency=afterok:{} --kill-on-invalid-dep=yes"
    assert lines == [
        f"--parsable {after.format('77')} {here}/datasets/sym.sbatch",
        f"--parsable {after.format('77:1')} {here}/runs/my run/job.sbatch",
        f"--parsable {after.format('77:2')} {here}/runs/my run/report.sbatch",
    ]
    entries = read_entries()
    assert [(e.job_id, e.verb, e.after) for e in entries] == [
        ("1", "prep", ("77",)),
        ("2", "train", ("77", "1")),
        ("3", "report", ("77", "2")),
    ]
    assert (entries[1].output, entries[1].steps, entries[1].ranks) == (f"{here}/runs/my run", 3, 2)
    assert "job 3: report my run-report, nodes 1, ranks 1, after 77, 2" in capsys.readouterr().out


def test_what_an_earlier_submission_left_is_not_asked_of_this_one(here, sbatch):
    run = here / "runs/my run"
    run.mkdir(parents=True)
    (run / "STOP").touch()
    (run / "job.status").write_text("12 1 complete\n")
    sbatch("echo 5")
    assert submit("train.yaml") == 0
    assert sorted(path.name for path in run.iterdir()) == ["job.sbatch"]


def test_an_array_is_one_job_with_a_folder_for_each_run(here, sbatch, capsys):
    sbatch('cp "${@: -1}" submitted; echo 9')
    assert submit("train.yaml", array=("seed", ["1", "2"])) == 0
    text = (here / "submitted").read_text()
    assert "#SBATCH --array=0-1\n" in text
    assert f"output='{here}/runs/my run/seed=2'" in text
    assert read_entries()[0].outputs == (f"{here}/runs/my run/seed=1", f"{here}/runs/my run/seed=2")
    assert "ranks 2, 2 runs" in capsys.readouterr().out


def test_a_refusal_in_mid_chain_says_what_was_submitted(sbatch, capsys):
    sbatch('case "$*" in *job.sbatch) echo "no such partition" >&2; exit 1;; *) echo 41;; esac')
    with pytest.raises(MachineError, match=r"sbatch refused .*job\.sbatch: no such partition"):
        submit("prep.yaml", "train.yaml")
    assert "not taken back: 41" in capsys.readouterr().err
    assert [entry.job_id for entry in read_entries()] == ["41"]


def test_no_sbatch(here, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="no sbatch on PATH: submit from a login node"):
        submit("train.yaml")
    assert (here / "runs/my run/job.sbatch").exists()


def test_an_answer_without_a_number(sbatch):
    sbatch("echo 'please read the news'")
    with pytest.raises(MachineError, match=r"gave no job number .*please read the news"):
        submit("train.yaml")


@pytest.mark.usefixtures("here")
def test_run_dir_that_cannot_be():
    Path("runs").touch()
    with pytest.raises(MachineError, match="cannot write"):
        submit("train.yaml")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("configs", "wish", "says"),
    [
        (["prep.yaml"], {"report": True}, "none of these is a training run"),
        (["train.yaml"], {"report": True, "array": ("seed", ["1", "2"])}, "for single runs"),
        (["train.yaml", "prep.yaml"], {"array": ("seed", ["1", "2"])}, "one config, not 2"),
        (["train.yaml"], {"site": "local", "via": "submitit"}, "submitit submits to Slurm"),
        (["train.yaml"], {"site": "local", "after": ["1"]}, "this site has none"),
    ],
)
def test_wishes_that_cannot_be(configs, wish, says):
    with pytest.raises(UserInputError, match=says):
        submit(*configs, **wish)


def test_a_job_around_us_does_not_leak_in(here, sbatch, monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_CONF", "SBATCH_PARTITION", "SBATCH_ACCOUNT", "SLURMISH"):
        monkeypatch.setenv(name, "7")
    sbatch("env > seen; echo 1")
    assert submit("train.yaml") == 0
    names = {line.partition("=")[0] for line in (here / "seen").read_text().splitlines()}
    assert {name for name in names if name.startswith(("SLURM", "SBATCH"))} == {
        *("SLURM_CONF", "SBATCH_ACCOUNT", "SLURMISH"),
    }


def test_a_journal_that_cannot_be_written_costs_no_job(sbatch, monkeypatch, capsys):
    sbatch("echo 6")
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert submit("train.yaml") == 0
    assert "`matsci-hpc jobs` will not know job 6" in capsys.readouterr().err


def test_local_dry_run_prints_one_command_for_each_job(here, capsys):
    assert submit("train.yaml", "prep.yaml", site="local", dry_run=True, report=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" -m matsci_hpc ")[2] for line in lines] == [
        f"prep {here}/prep.yaml",
        f"train {here}/train.yaml",
        f"report '{here}/runs/my run'",
    ]
    assert "MALLOC_TOP_PAD_=" in lines[1]
    assert not (here / "runs").exists()


@pytest.fixture
def program(here):
    """A function that puts a program in the place of matsci-hpc: this folder comes first where `-m` looks."""
    Path("site.yaml").write_text("scheduler: local\nranks_per_node: 1\n")

    def install(text):
        package = here / "matsci_hpc"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(f"import pathlib, sys\nverb = sys.argv[1]\n{text}\n")

    return install


def test_a_local_run_returns_the_exit_code(program):
    program("sys.exit(6 if verb == 'train' else 0)")
    assert submit("train.yaml") == 6
    assert submit("prep.yaml") == 0


@pytest.mark.parametrize(
    ("prep", "train", "code", "begun", "says"),
    [
        (0, 0, 0, ["prep", "train", "report"], ""),
        (7, 0, 7, ["prep"], "sym failed with exit code 7; not begun: my run, my run-report"),
        (0, 4, 4, ["prep", "train"], "my run failed with exit code 4; not begun: my run-report"),
        (0, None, 0, ["prep", "train"], "my run is not complete; not begun: my run-report"),
    ],
)
def test_a_local_chain_ends_where_it_breaks(prep, train, code, begun, says, program, capsys):
    ends = {"prep": (prep, "datasets/sym/dataset.json"), "train": (train, "runs/my run/DONE")}
    program(
        f"ends = {ends}\nopen('begun', 'a').write(verb + '\\n')\n"
        "code, made = ends.get(verb, (0, 'runs/my run/report.html'))\n"
        "pathlib.Path(made).parent.mkdir(parents=True, exist_ok=True)\n"
        "if code == 0: pathlib.Path(made).touch()\n"
        "sys.exit(code)"
    )
    assert submit("prep.yaml", "train.yaml", report=True) == code
    assert Path("begun").read_text().split() == begun
    assert says in capsys.readouterr().out
