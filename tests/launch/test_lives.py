"""Rendered scripts, run for real: only the scheduler's own commands, the launcher and the interpreter are stand-ins."""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from matsci_hpc.launch.job import Element, Need
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.script import render

HOSTILE = "$(touch pwned) `touch pwned`'\";touch pwned;# %j ${HOME} -e é"
# The parent of this process is the batch script: the stand-in of the launcher has replaced itself by it.
TIME_IS_UP = "kill -USR1 $PPID; until [ -e run/STOP ]; do /bin/sleep 0.05; done"
# Preparation has no STOP file; the script ends its launcher instead.
PREP_TIME_IS_UP = "trap 'exit 143' TERM; kill -USR1 $PPID; while :; do /bin/sleep 0.05; done"
CHECKPOINT = "mkdir -p run/checkpoints/step-000010"

DROP_OPTIONS = 'while [[ $1 == -* ]]; do if [[ $1 == --* ]]; then shift; else shift 2; fi; done\nexec "$@"'
FLUX = """
case "$1 $2" in
  "getattr jobid") echo ƒhere ;;
  "job id") case $4 in ƒhere) echo 40007 ;; ƒnext) echo 40008 ;; *) exit 1 ;; esac ;;
  "hostlist --expand") echo "n7 n8" ;;
  "--parent batch") shift 2; printf '%s\\n' "$*" >>"$CALLS"; [ ! -e "$REFUSE" ] && echo ƒnext ;;
  "run "*) shift; {drop} ;;
  *) exit 1 ;;
esac
""".replace("{drop}", DROP_OPTIONS.replace("\n", "; "))


@dataclass(frozen=True)
class Stage:
    """A scheduler as its job scripts see it."""

    environment: dict[str, str]
    commands: dict[str, str]
    job_id: str = "40007"
    next_id: str | None = None
    """Number of the next life, where that is another job."""
    again_code: int = 0


STAGES = {
    "slurm": Stage(
        {"SLURM_JOB_ID": "40007", "SLURM_JOB_NODELIST": "n[7-8]", "SLURM_CPUS_PER_TASK": "3"},
        {
            "srun": DROP_OPTIONS,
            "scontrol": 'case $1 in show) printf "n7\\nn8\\n" ;; *) echo "$*" >>"$CALLS"; [ ! -e "$REFUSE" ] ;; esac',
            "sleep": "true",
        },
    ),
    "pbs": Stage(
        {"PBS_JOBID": "40007.srv", "PBS_NODEFILE": "hosts"},
        {
            "mpiexec": DROP_OPTIONS,
            # Sites have hooks that print lines of their own.
            "qsub": 'printf "%s\\n" "$*" >>"$CALLS"; [ ! -e "$REFUSE" ] && printf "charged to abc\\n40008.srv\\n"',
        },
        job_id="40007.srv",
        next_id="40008.srv",
    ),
    "lsf": Stage(
        {"LSB_JOBID": "40007", "LSB_MCPU_HOSTS": "n7 2 n8 2"},
        {"mpirun": DROP_OPTIONS},
        again_code=99,
    ),
    "flux": Stage({}, {"flux": FLUX}, next_id="40008"),
}
SUCCESSORS = [name for name, stage in STAGES.items() if stage.next_id]
TIMED = [name for name in STAGES if name != "slurm"]


@dataclass(frozen=True)
class Life:
    """What a script did."""

    code: int
    said: str
    status: str
    calls: list[str]
    again: bool


@pytest.fixture
def life(tmp_path, make_job, make_site):
    """A function that runs the script of one life."""

    def run(name, program, /, *, number=1, work_dir=tmp_path, output=None, site=None, environment=None, **changes):
        stage, scheduler = STAGES[name], SCHEDULERS[name]
        for command, text in stage.commands.items():
            executable(tmp_path / "bin" / command, text)
        (tmp_path / "hosts").write_text("n7\nn7\nn8\nn8\n")
        python = executable(work_dir / "env bin" / "python", program)
        job = make_job(work_dir=work_dir, output=output or work_dir / "run", python=python, **changes)
        job.folder.mkdir(exist_ok=True)
        path = job.stem.with_name(job.stem.name + scheduler.suffix)
        path.write_text(render(job, make_site(scheduler=name, **(site or {})), scheduler))
        subprocess.run(["bash", "-n", path], check=True)
        calls = tmp_path / "calls"
        result = subprocess.run(
            ["bash", path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env={
                "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
                "CALLS": str(calls),
                "REFUSE": str(tmp_path / "refuse"),
                **{
                    key: str(tmp_path / "hosts") if value == "hosts" else value
                    for key, value in stage.environment.items()
                },
                **_passed_on(name, number, job),
                **(environment or {}),
            },
        )
        log = scheduler.log(job, stage.job_id)
        status = job.status if not job.elements else job.elements[0].output / "job.status"
        asked = calls.read_text().splitlines() if calls.exists() else []
        said = result.stdout + result.stderr + (log.read_text() if log.exists() else "")
        return Life(
            result.returncode,
            said,
            status.read_text().strip() if status.exists() else "",
            asked,
            _goes_on(name, result.returncode, asked, number),
        )

    return run


def _passed_on(name: str, number: int, job) -> dict[str, str]:
    """How a script of this scheduler learns which life it is."""
    if name == "slurm":
        return {"SLURM_RESTART_COUNT": str(number - 1)}
    if name in SUCCESSORS:
        return {"MATSCI_LIFE": str(number)} if number > 1 else {}
    if number > 1:
        job.status.write_text(f"40007 {number - 1} again: stopped at 0\n")
    return {}


def _goes_on(name: str, code: int, calls: list[str], number: int) -> bool:
    """Whether the script has asked its scheduler for another life."""
    if name == "slurm":
        return "requeue 40007" in calls
    if name == "lsf":
        return code == STAGES[name].again_code
    return any(f"MATSCI_LIFE={number + 1}" in call and "afterany:40007" in call for call in calls)


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    ("training", "number", "code", "again", "says"),
    [
        ("touch run/DONE", 1, 0, False, "complete"),
        (f"{TIME_IS_UP}; {CHECKPOINT}", 1, 0, True, "stopped at step 10"),
        (f"{TIME_IS_UP}; touch run/DONE", 1, 0, False, "complete"),
        (TIME_IS_UP, 1, 3, False, "given up: no new checkpoint"),
        (f"{TIME_IS_UP}; {CHECKPOINT}.partial", 1, 3, False, "given up: no new checkpoint"),
        # Stopped by itself, as max_time_s does.
        (CHECKPOINT, 2, 0, True, "stopped at step 10"),
        (f"{CHECKPOINT}; echo 'by hand' >run/STOPPED", 1, 0, False, "stopped: by hand; submit again"),
        # A signal from anywhere, which training has obeyed.
        (f"{CHECKPOINT}; echo 'signal SIGTERM' >run/STOPPED", 1, 0, True, "stopped at step 10"),
        (f"{TIME_IS_UP}; {CHECKPOINT}; exit 7", 1, 7, False, "failed: exit code 7; not started again"),
        (f"{TIME_IS_UP}; {CHECKPOINT}", 5, 3, False, "given up: after 5 lives"),
        ("touch run/DONE", 6, 3, False, "given up: this is life 6"),
    ],
)
def test_how_a_training_life_ends(name, training, number, code, again, says, life):
    ended = life(name, training, number=number, site={"max_lives": 5})
    expected = STAGES[name].again_code if again else code
    assert (ended.code, ended.again) == (expected, again), ended
    assert says in ended.said
    if again and STAGES[name].next_id:
        assert ended.status == f"{STAGES[name].next_id} {number + 1} queued"
    else:
        assert ended.status.startswith(f"{STAGES[name].job_id} {number} {'again: ' if again else says}")


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    ("program", "code", "again", "says"),
    [
        ("touch run/dataset.json", 0, False, "complete"),
        (f"touch run/shard-000001.h5; {PREP_TIME_IS_UP}", 0, True, "stopped at shard 1"),
        (PREP_TIME_IS_UP, 3, False, "given up: no new shard"),
        ("exit 4", 4, False, "failed: exit code 4"),
        ("true", 3, False, "failed: exit code 3"),
    ],
)
def test_how_a_preparation_life_ends(name, program, code, again, says, tmp_path, life):
    (tmp_path / "run").mkdir()
    ended = life(name, program, verb="prep")
    assert (ended.code, ended.again) == (STAGES[name].again_code if again else code, again), ended
    assert says in ended.said


@pytest.mark.parametrize("name", STAGES)
def test_a_preparation_whose_time_is_up_before_its_ranks_start_is_ended_at_once(name, life):
    for_ever = "while :; do /bin/sleep 0.05; done"
    ended = life(name, for_ever, verb="prep", time_limit="04:00:00", site={"setup": ["kill -USR1 $$"]})
    assert (ended.code, ended.again) == (STAGES[name].again_code, True), ended
    assert "stopped at shard 0" in ended.said


# Deaf to STOP and to TERM, as a rank that hangs.
HANGS = "trap '' TERM; kill -USR1 $PPID; while :; do /bin/sleep 0.05; done"
ENDS_THEM = "ranks did not stop in time"


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("verb", "progress"), [("train", CHECKPOINT), ("prep", "touch run/shard-000001.h5")])
def test_ranks_that_do_not_stop_are_ended_and_the_job_goes_on(name, verb, progress, tmp_path, life):
    (tmp_path / "run").mkdir()
    ended = life(name, f"{progress}; {HANGS}", verb=verb, site={"signal_before_end_s": 2})
    assert (ended.code, ended.again) == (STAGES[name].again_code, True), ended
    assert ENDS_THEM in ended.said
    assert not (tmp_path / "run/STOP").exists()
    assert_nothing_runs(tmp_path)


def test_ranks_that_hang_and_have_saved_nothing_are_given_up(tmp_path, life):
    ended = life("slurm", HANGS, site={"signal_before_end_s": 2})
    assert (ended.code, ended.again) == (3, False), ended
    assert "given up: no new checkpoint" in ended.said
    assert not (tmp_path / "run/STOP").exists()


def test_ranks_that_only_obey_a_signal_have_not_failed(life):
    deaf_to_stop = f"{CHECKPOINT}; trap 'exit 143' TERM; kill -USR1 $PPID; while :; do /bin/sleep 0.05; done"
    ended = life("slurm", deaf_to_stop, site={"signal_before_end_s": 2})
    assert (ended.code, ended.again) == (0, True), ended
    assert ENDS_THEM in ended.said


def test_the_last_call_counts_from_the_limit_and_not_from_an_early_signal(life):
    # Slurm signals up to a minute early: ranks that take longer than `signal_before_end_s` may use that minute.
    slow = f"trap 'exit 143' TERM; kill -USR1 $PPID; /bin/sleep 4; {CHECKPOINT}"
    ended = life("slurm", slow, time_limit="00:00:40", site={"signal_before_end_s": 2})
    assert (ended.code, ended.again) == (0, True), ended
    assert ENDS_THEM not in ended.said


def test_a_stop_by_hand_that_hung_ranks_have_not_seen_is_kept_for_the_next_life(tmp_path, life):
    by_hand = f"{CHECKPOINT}; touch run/STOP; {HANGS}"
    ended = life("slurm", by_hand, site={"signal_before_end_s": 2})
    assert (ended.code, ended.again) == (0, True), ended
    assert (tmp_path / "run/STOP").read_text() == ""


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("program", "code", "says"), [("true", 0, "complete"), ("exit 5", 5, "failed: exit code 5")])
def test_how_a_report_ends(name, program, code, says, life):
    ended = life(name, program, verb="report", nodes=1, ranks_per_node=1)
    assert (ended.code, ended.again) == (code, False), ended
    assert says in ended.said
    assert ended.status.startswith(f"{STAGES[name].job_id} 1 {says}")


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("verb", ["train", "prep", "report"])
def test_a_line_of_the_site_that_fails_is_told(name, verb, life):
    size = {"nodes": 1, "ranks_per_node": 1} if verb == "report" else {}
    ended = life(name, "exit 9", verb=verb, site={"setup": ["module() { return 4; }", "module load no_such"]}, **size)
    assert (ended.code, ended.again) == (4, False), ended
    words = f"{STAGES[name].job_id} 1 failed: exit code 4 before the ranks started"
    assert ended.status == words


@pytest.mark.parametrize("name", STAGES)
def test_a_life_that_was_cut_short_is_no_fault_of_the_run(name, life):
    ended = life(name, TIME_IS_UP, time_limit="04:00:00")
    assert (ended.code, ended.again) == (STAGES[name].again_code, True), ended


@pytest.mark.parametrize("name", STAGES)
def test_a_life_that_repeats_old_steps_is_given_up(name, tmp_path, life):
    # 000009 and 10 compare as numbers, and never as octal ones.
    (tmp_path / "run/checkpoints/step-000010").mkdir(parents=True)
    ended = life(name, f"{TIME_IS_UP}; mkdir run/checkpoints/step-000009", number=2)
    assert (ended.code, ended.again) == (3, False), ended
    assert "newest step 10" in ended.said


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("dependents", [False, True])
@pytest.mark.parametrize(
    ("before", "program", "says"),
    [("", "exit 9", "before this life began"), (None, "echo 'by hand' >run/STOPPED", "stopped: by hand; submit")],
)
def test_a_stop_by_hand_ends_the_job_and_what_waits_for_it(name, dependents, before, program, says, tmp_path, life):
    (tmp_path / "run").mkdir()
    if before is not None:
        (tmp_path / "run/STOP").write_text(before)
    ended = life(name, program, has_dependents=dependents)
    assert (ended.code, ended.again) == (3 if dependents else 0, False), ended
    assert says in ended.said
    assert not (tmp_path / "run/STOP").exists()


@pytest.mark.parametrize("name", STAGES)
def test_a_limit_that_a_killed_life_did_not_see_is_forgotten(name, tmp_path, life):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/STOP").write_text("time limit\n")
    ended = life(name, "if [ -e run/STOP ]; then exit 9; fi; touch run/DONE")
    assert ended.code == 0, ended


@pytest.mark.parametrize("name", [name for name in STAGES if name != "lsf"])
def test_a_cluster_that_grants_no_further_life_is_told_of(name, tmp_path, life):
    (tmp_path / "refuse").touch()
    ended = life(name, f"{TIME_IS_UP}; {CHECKPOINT}")
    assert ended.code == 3, ended
    assert "given up: this cluster does not let" in ended.status


def test_lsf_does_not_take_the_code_of_a_failure_for_a_wish(life):
    assert life("lsf", "exit 99").code == 1


@pytest.mark.parametrize("name", TIMED)
def test_the_script_keeps_the_time_and_leaves_no_clock_behind(name, tmp_path, life):
    waits = "until [ -e run/STOP ]; do /bin/sleep 0.05; done"
    ended = life(name, f"{waits}; {CHECKPOINT}", time_limit="00:00:04", site={"signal_before_end_s": 2})
    assert (ended.code, ended.again) == (STAGES[name].again_code, True), ended
    ended = life(name, "touch run/DONE", time_limit="04:00:00")
    assert ended.code == 0, ended
    assert_nothing_runs(tmp_path)


def assert_nothing_runs(folder: Path) -> None:
    for _ in range(200):
        left = _scripts_running(folder)
        if not left:
            break
        time.sleep(0.05)
    assert not left


def _scripts_running(folder: Path) -> list[bytes]:
    """Command lines of processes, a background shell of a script among them, that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:  # gone meanwhile
            continue
        if words.startswith(b"bash\0") and os.fsencode(folder) in words:
            found.append(words)
    return found


@pytest.mark.parametrize("name", TIMED)
def test_a_job_that_its_scheduler_runs_again_is_in_its_next_life(name, tmp_path, life):
    # A node was lost: the same number and the same environment as before.
    stage = STAGES[name]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/job.status").write_text(f"{stage.job_id} 2 running\n")
    passed = {"MATSCI_LIFE": "2"} if name in SUCCESSORS else {}
    ended = life(name, "touch run/DONE", environment=passed)
    assert ended.status == f"{stage.job_id} 3 complete", ended


@pytest.mark.parametrize("name", SUCCESSORS)
def test_all_lives_write_one_log(name, tmp_path, life):
    first = "39000.srv" if name == "pbs" else "39000"
    log = tmp_path / "run" / f"{name}-{first}.out"
    log.parent.mkdir()
    log.write_text("what life 1 said\n")
    (tmp_path / "run/job.status").write_text(f"{STAGES[name].job_id} 2 queued\n")
    passed = {"MATSCI_LIFE": "2", "MATSCI_FIRST": first}
    ended = life(name, f"{CHECKPOINT}; env", environment=passed)
    text = log.read_text()
    assert text.startswith("what life 1 said\n")
    assert "life 2 of job" in text
    assert "MATSCI_" not in text  # what a life is told is not for the ranks
    assert any(f"MATSCI_FIRST={first}" in call for call in ended.calls)


NEED = Need(marker=Path("data/dataset.json"), status=Path("data.status"))


@pytest.mark.parametrize("name", STAGES)
def test_a_job_whose_needs_are_missing_fails(name, life):
    ended = life(name, "touch run/DONE", needs=(NEED,))
    assert (ended.code, ended.calls) == (3, []), ended
    assert "failed: data/dataset.json is not there" in ended.status


@pytest.mark.parametrize("name", STAGES)
def test_a_job_whose_needs_are_there_runs(name, tmp_path, life):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset.json").touch()
    assert life(name, "touch run/DONE", needs=(NEED,)).code == 0


@pytest.mark.parametrize("name", SUCCESSORS)
@pytest.mark.parametrize("state", ["queued", "running", "again: stopped at 7"])
def test_a_job_queues_up_behind_the_next_life_of_what_it_needs(name, state, tmp_path, life):
    maker = "39007.srv" if name == "pbs" else "39007"
    (tmp_path / "data.status").write_text(f"{maker} 2 {state}\n")
    ended = life(name, "touch run/DONE", needs=(NEED,), number=3)
    assert ended.code == 0, ended
    assert not (tmp_path / "run/DONE").exists()
    assert ended.status == f"{STAGES[name].next_id} 3 queued"
    (call,) = ended.calls
    assert re.search(rf"afterok:{maker}\b", call)
    assert re.search(r"MATSCI_LIFE=3\b", call)
    # Behind the same job a second time: it has ended well without making anything, so waiting on would never end.
    ended = life(name, "touch run/DONE", needs=(NEED,), environment={"MATSCI_WAITED_FOR": maker})
    assert ended.code == 3, ended


@pytest.mark.parametrize("name", SUCCESSORS)
@pytest.mark.parametrize("status", ["39007 2 complete", "39007 2 failed: exit code 1", "", "$(touch pwned) 2 queued"])
def test_a_job_does_not_wait_for_what_has_ended(name, status, tmp_path, life):
    (tmp_path / "data.status").write_text(f"{status}\n")
    ended = life(name, "touch run/DONE", needs=(NEED,))
    assert (ended.code, ended.calls) == (3, []), ended
    assert not list(tmp_path.rglob("pwned*"))


@pytest.mark.parametrize("name", STAGES)
def test_every_rank_gets_the_environment(name, tmp_path, life):
    ended = life(
        name,
        "env -0 > seen; touch run/DONE",
        cpus_per_rank=3,
        site={
            "setup": ['export FROM_SETUP="yes $NOT_SET_ANYWHERE"', "export OMP_NUM_THREADS=99"],
            "environment": {"MALLOC_TOP_PAD_": "1", "HOSTILE": HOSTILE + "\nline\\n'"},
        },
    )
    assert ended.code == 0, ended
    seen = dict(entry.split("=", 1) for entry in (tmp_path / "seen").read_text().split("\0") if entry)
    expected = {
        "FROM_SETUP": "yes ",
        "OMP_NUM_THREADS": "3",
        "MASTER_ADDR": "n7",
        "MASTER_PORT": "24007",
        "MKL_NUM_THREADS": "3",
        "MALLOC_MMAP_MAX_": "0",
        "OMP_PROC_BIND": "false",
        "PYTHONUNBUFFERED": "1",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "MALLOC_TOP_PAD_": "1",
        "HOSTILE": HOSTILE + "\nline\\n'",
    }
    assert {key: seen.get(key) for key in expected} == expected


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("verb", ["train", "prep", "report"])
def test_hostile_names_stay_names(name, verb, tmp_path, life):
    work_dir = tmp_path / HOSTILE
    directives = "\n#SBATCH --qos=evil\n#PBS -q evil\n#BSUB -q evil\n# flux: -q evil\n"
    config = Path("/") / (HOSTILE.replace("/", "") + f"\ntouch pwned{directives}.yaml")
    overrides = (f"note={HOSTILE}\ntouch pwned{directives}", "data.train=[$(touch pwned)]", "x=a\\")
    (work_dir / f"run{HOSTILE}").mkdir(parents=True)
    ended = life(
        name,
        'printf "%s\\0" "$@" > seen; for d in run*/; do touch "$d/DONE" "$d/dataset.json"; done',
        work_dir=work_dir,
        output=work_dir / f"run{HOSTILE}",
        name=HOSTILE,
        verb=verb,
        config=config,
        overrides=overrides,
        site={"binding": [f"--comment={HOSTILE}{directives}"]},
        needs=(Need(marker=tmp_path / "bin", status=work_dir / f"{HOSTILE}.status"),),
    )
    assert ended.code == 0, ended
    arguments = (work_dir / "seen").read_text().split("\0")[:-1]
    assert arguments == ["-m", "matsci_hpc", verb, os.fspath(config), *overrides]
    assert not list(tmp_path.rglob("pwned*"))
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "hosts", HOSTILE}
    script = next(work_dir.rglob(f"*{SCHEDULERS[name].suffix}")).read_text()
    assert not re.search(r"(?m)^(#SBATCH|#PBS|#BSUB|# flux:).*evil", script)


def test_the_runs_of_an_array_keep_apart(tmp_path, life):
    elements = tuple(
        Element(overrides=(f"seed={i}", f"run_dir={tmp_path / f'run/seed={i}'}"), output=tmp_path / f"run/seed={i}")
        for i in range(3)
    )
    environment = {"SLURM_ARRAY_JOB_ID": "40001", "SLURM_ARRAY_TASK_ID": "0"}
    program = 'printf "%s\\0" "$@" > seen; mkdir -p "run/seed=0/checkpoints/step-000010"'
    ended = life("slurm", program, elements=elements, environment=environment)
    # By its own number: 40007 would be that of the whole array if this were its last run.
    assert (ended.code, ended.calls) == (0, ["requeue 40001_0"]), ended
    assert ended.status == "40001_0 1 again: stopped at step 10"
    arguments = (tmp_path / "seen").read_text().split("\0")[:-1]
    assert arguments == ["-m", "matsci_hpc", "train", "/home/ada/runs/demo.yaml", *elements[0].overrides]
    assert not (tmp_path / "run/seed=1").exists()


def test_every_scheduler_is_on_stage():
    assert {name: stage.next_id is None for name, stage in STAGES.items()} == {
        name: scheduler.keeps_id for name, scheduler in SCHEDULERS.items()
    }
