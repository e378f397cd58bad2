"""Jobs through submitit as far as they need no cluster: what is pickled, written and refused, and one rank alone."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ranks import environment, run_ranks
from submitit.core.utils import DelayedSubmission, pickle_load

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch import submit
from matsci_hpc.launch.job import Component, Job
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.start import Wish, start
from matsci_hpc.launch.submitit_job import FORGOTTEN, QueueWatcher
from matsci_hpc.launch.submitit_task import Task
from matsci_hpc.launch.via_submitit import SubmititDesk, batch_file, folder_of, task_of

JOB = Job(
    name="demo",
    verb="train",
    config=Path("/home/ada/runs/demo.yaml"),
    overrides=("seed=3",),
    work_dir=Path("/home/ada"),
    output=Path('/scratch/ada/it\'s a "run"'),
    components=(Component(nodes=2, ranks_per_node=4),),
    python=Path("/opt/venv/bin/python"),
)


def site(**keys):
    return Site.model_validate({"scheduler": "slurm"} | keys)


def files_below(folder):
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Path("train.yaml").write_text("run_dir: my run\nsteps: 3\ndata: {train: [clouds]}\nbatch: {graphs: 4}\n")
    Path("site.yaml").write_text("scheduler: slurm\nranks_per_node: 2\n")
    return tmp_path


def test_the_pickle_names_two_classes_and_holds_text(tmp_path):
    class Recorder(pickle.Unpickler):
        names = ()

        def find_class(self, module, name):
            self.names += (f"{module}.{name}",)
            return super().find_class(module, name)

    DelayedSubmission(task_of(JOB)).dump(tmp_path / "task.pkl")
    with (tmp_path / "task.pkl").open("rb") as file:
        recorder = Recorder(file)
        loaded = recorder.load()
    assert set(recorder.names) == {"submitit.core.utils.DelayedSubmission", "matsci_hpc.launch.submitit_task.Task"}
    assert loaded.function == Task(("train", str(JOB.config), "seed=3"), str(JOB.output))
    assert (tmp_path / "task.pkl").stat().st_size < 1000


def test_a_dry_run_touches_nothing_and_needs_no_slurm(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    before = files_below(here)
    wish = Wish(runs=[(Path("train.yaml"), ())], site="./site.yaml", after=["12"], via="submitit")
    assert start(wish, dry_run=True) == 0
    assert files_below(here) == before
    printed = capsys.readouterr().out
    assert f"-m matsci_hpc.launch.submitit_rank '{here}/my run/job.submitit'" in printed
    assert "--dependency=afterok:12 --kill-on-invalid-dep=yes" in printed
    pickled = json.loads(printed.partition("\n# pickled: ")[2])
    assert pickled == {"arguments": ["train", str(here / "train.yaml")], "output": str(here / "my run")}


def test_the_batch_file_has_no_setting_that_we_did_not_ask_for():
    directives = [line for line in batch_file(JOB, site()).splitlines() if line.startswith("#SBATCH")]
    assert not [line for line in directives if "--wckey" in line or "--time" in line]
    assert "#SBATCH --open-mode=append" in directives


@pytest.mark.parametrize(
    ("changes", "site_keys", "words"),
    [
        ({"components": JOB.components * 2}, {}, "cannot mix kinds of nodes"),
        ({}, {"launcher": "mpirun"}, "what srun says, and this site has mpirun"),
        ({"output": Path("/scratch/a%job")}, {}, "takes %j, %t, %A, %a in a path for numbers"),
        ({"output": Path("/scratch/\udcff")}, {}, "in UTF-8 only"),
        ({"output": Path("/scratch/a\nb")}, {}, "which #SBATCH lines cannot hold"),
    ],
)
def test_what_submitit_cannot_hold_is_refused(changes, site_keys, words):
    with pytest.raises(UserInputError, match=words):
        SubmititDesk().preview(replace(JOB, **changes), site(**site_keys), [])


def test_refusals_of_submit(here, monkeypatch):
    with pytest.raises(UserInputError, match="submits to Slurm, and the site local has local"):
        submit("train.yaml", site="local")
    with pytest.raises(UserInputError, match="nodes=0: "):
        submit("train.yaml", site="./site.yaml", nodes=0)
    with pytest.raises(UserInputError, match="'1:2' is no number of a job"):
        submit("train.yaml", site="./site.yaml", after=["1:2"])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="no sbatch on PATH"):
        submit("train.yaml", site="./site.yaml", check=False)
    with pytest.raises(UserInputError, match="no data set here"):
        submit("train.yaml", site="./site.yaml")
    assert not (here / "my run").exists()


def test_importing_the_package_does_not_import_submitit():
    program = "import sys, matsci_hpc.launch; sys.exit('submitit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env=environment(), check=False).returncode == 0


def test_what_squeue_leaves_out_has_ended():
    watcher = QueueWatcher()
    for job_id in ("1", "2", "3"):
        watcher.register_job(job_id)
    watcher._info_dict = watcher.read_info(b"1|CONFIGURING|None|0:00\n2|CANCELLED|None|0:09\n")
    assert [watcher.is_done(job_id, mode="cache") for job_id in ("1", "2", "3")] == [False, True, True]
    assert watcher.get_state("3", mode="cache") == FORGOTTEN


@pytest.fixture
def run_rank(here):
    """A function that pickles a task and runs it as the only rank of job 7, as srun would."""
    folder = here / "job.submitit"
    folder.mkdir()

    def run(*arguments, output):
        DelayedSubmission(Task(tuple(map(str, arguments)), str(output))).dump(folder / "7_submitted.pkl")
        (folder / "7_0_result.pkl").write_bytes(b"of a life before")
        (folder / "7_0_result.pkl.save_tmp").touch()
        return subprocess.run(
            [sys.executable, "-m", "matsci_hpc.launch.submitit_rank", folder],
            env=environment(SUBMITIT_EXECUTOR="slurm", SLURM_JOB_ID="7"),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def clouds(here):
    source = "source: {kind: symmetry, samples: 40, seed: 5}\nout: clouds\nneighbors: {cutoff: 2}\n"
    (here / "prep.yaml").write_text(source)
    made = run_ranks(1, "prep", here / "prep.yaml", timeout_s=300)
    assert made.returncode == 0, made.stderr
    return here / "clouds"


def result_of(here):
    return pickle_load(here / "job.submitit/7_0_result.pkl")


def test_a_rank_that_is_done_leaves_a_result(here, clouds, run_rank):
    run = here / "my run"
    done = run_rank("train", here / "train.yaml", f"data.train=[{clouds}]", f"run_dir='{run}'", output=run)
    assert done.returncode == 0, done.stderr
    assert result_of(here) == ("success", {"step": 3, "complete": True, "reason": None})


def test_a_rank_that_goes_on_later_leaves_none(here, clouds, run_rank):
    run = here / "my run"
    words = (f"data.train=[{clouds}]", f"run_dir='{run}'", "max_time_s=0.001")
    done = run_rank("train", here / "train.yaml", *words, output=run)
    assert done.returncode == 0, done.stderr
    assert (run / "STOPPED").read_text() == "max_time_s\n"
    assert files_below(here / "job.submitit") == [str(here / "job.submitit/7_submitted.pkl")]


def test_a_rank_that_fails_leaves_its_reason_and_the_usual_exit_code(here, run_rank):
    done = run_rank("train", here / "train.yaml", "steps=none", output=here / "my run")
    assert done.returncode == UserInputError.exit_code
    assert "matsci-hpc: error: " in done.stderr
    assert "Traceback" not in done.stderr
    outcome, text = result_of(here)
    assert outcome == "error"
    assert "UserInputError" in text


EARLY = """\
import os, signal, sys
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission
environment = JobEnvironment()
environment._handle_signals(environment.paths, DelayedSubmission.load(environment.paths.submitted_pickle))
os.kill(os.getpid(), signal.SIGUSR2)
"""


def test_a_signal_before_training_listens_starts_the_same_again(here):
    delayed = DelayedSubmission(task_of(JOB))
    delayed.set_timeout(5, site().max_lives)  # as its executor does
    delayed.dump(here / "7_submitted.pkl")
    scontrol = here / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/bash\necho "$@" >{here}/asked\n')
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(here), "SLURM_JOB_ID": "7", "PATH": path}
    done = subprocess.run([sys.executable, "-c", EARLY], env=environment(**variables), check=False)
    assert done.returncode == 255
    assert (here / "asked").read_text() == "requeue 7\n"
    assert DelayedSubmission.load(here / "7_submitted.pkl").function == task_of(JOB)


def test_where_the_pickles_lie():
    assert folder_of(JOB) == JOB.output / "job.submitit"
    assert folder_of(replace(JOB, verb="prep")) == Path(f"{JOB.output}.submitit")
