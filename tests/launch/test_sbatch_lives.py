"""Rendered scripts, run for real: only srun, scontrol, the long sleep and the interpreter are stand-ins."""

import os
import subprocess
from pathlib import Path

import pytest

from matsci_hpc.launch.sbatch import render

HOSTILE = "$(touch pwned) `touch pwned`'\";touch pwned;# %j ${HOME} -e é"


@pytest.fixture
def cluster(tmp_path, make_job, make_site):
    """A function that runs a rendered script and tells what happened."""
    bin_dir = tmp_path / "bin"
    calls = tmp_path / "scontrol.calls"
    stand_ins = {
        # Drops its own options, as the real one does.
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
        "scontrol": f'echo "$*" >> "{calls}"\nif [ "$1" = show ]; then printf "n7\\nn8\\n"; fi',
        "sleep": "true",
    }
    for name, text in stand_ins.items():
        executable(bin_dir / name, text)

    def run(training, *, work_dir=tmp_path, run_dir=None, restarts=0, site=None, **job_changes):
        python = executable(work_dir / "env bin" / "python", training)
        job = make_job(work_dir=work_dir, run_dir=run_dir or work_dir / "run", python=python, **job_changes)
        script = render(job, make_site(**(site or {})))
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        result = subprocess.run(
            ["bash", "-s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={
                "PATH": f"{bin_dir}:/usr/bin:/bin",
                "SLURM_JOB_ID": "40007",
                "SLURM_JOB_NODELIST": "n[7-8]",
                "SLURM_CPUS_PER_TASK": "3",
                "SLURM_RESTART_COUNT": str(restarts),
            },
        )
        requeued = calls.exists() and "requeue 40007" in calls.read_text().splitlines()
        return result, requeued

    return run


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


# The parent of this process is the batch script: srun has replaced itself by it.
TIME_IS_UP = "kill -USR1 $PPID; until [ -e run/STOP ]; do /bin/sleep 0.05; done"


@pytest.mark.parametrize(
    ("training", "restarts", "code", "requeued", "says"),
    [
        ("touch run/DONE", 0, 0, False, "training is complete"),
        (f"{TIME_IS_UP}; mkdir -p run/checkpoints/step-000010", 0, 0, True, "stopped at step 10"),
        (f"{TIME_IS_UP}; touch run/DONE", 0, 0, False, "training is complete"),
        (TIME_IS_UP, 0, 3, False, "given up: no new checkpoint"),
        (f"{TIME_IS_UP}; mkdir -p run/checkpoints/step-000010.partial", 0, 3, False, "no new checkpoint"),
        # Stopped by itself, as max_time_s does.
        ("mkdir -p run/checkpoints/step-000010", 1, 0, True, "stopped at step 10"),
        ("mkdir -p run/checkpoints/step-000010; touch run/STOP", 0, 0, False, "stopped by hand"),
        (f"{TIME_IS_UP}; mkdir -p run/checkpoints/step-1; exit 7", 0, 7, False, "exit code 7"),
        (f"{TIME_IS_UP}; mkdir -p run/checkpoints/step-000010", 4, 3, False, "given up after 5 lives"),
        ("touch run/DONE", 5, 3, False, "given up: this is life 6"),
    ],
)
def test_how_a_life_ends(training, restarts, code, requeued, says, cluster):
    result, was_requeued = cluster(training, restarts=restarts, site={"max_lives": 5})
    assert (result.returncode, was_requeued) == (code, requeued), result
    assert says in result.stdout + result.stderr


def test_a_life_that_repeats_old_steps_is_given_up(tmp_path, cluster):
    # 000009 and 10 compare as numbers, and never as octal ones.
    (tmp_path / "run/checkpoints/step-000010").mkdir(parents=True)
    result, requeued = cluster(f"{TIME_IS_UP}; mkdir run/checkpoints/step-000009", restarts=1)
    assert (result.returncode, requeued) == (3, False)
    assert "newest step 10" in result.stderr


def test_a_stop_of_an_earlier_life_is_forgotten(tmp_path, cluster):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/STOP").touch()
    result, _ = cluster("if [ -e run/STOP ]; then exit 9; fi; touch run/DONE")
    assert result.returncode == 0, result


@pytest.mark.parametrize("code", [0, 4])
def test_preparation_ends_with_its_own_exit_code(code, cluster):
    result, requeued = cluster(f"exit {code}", verb="prep")
    assert (result.returncode, requeued) == (code, False)


def test_every_rank_gets_the_environment(tmp_path, cluster):
    result, _ = cluster(
        "env -0 > seen; touch run/DONE",
        site={
            "setup": ['export FROM_SETUP="yes $NOT_SET_ANYWHERE"', "export OMP_NUM_THREADS=99"],
            "environment": {"MALLOC_TOP_PAD_": "1", "HOSTILE": HOSTILE + "\nline"},
        },
    )
    assert result.returncode == 0, result
    seen = dict(entry.split("=", 1) for entry in (tmp_path / "seen").read_text().split("\0") if entry)
    expected = {
        "FROM_SETUP": "yes ",
        "OMP_NUM_THREADS": "3",
        "MASTER_ADDR": "n7",
        "MASTER_PORT": "24007",
        "PYTHONUNBUFFERED": "1",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "MALLOC_TOP_PAD_": "1",
        "HOSTILE": HOSTILE + "\nline",
    }
    assert {name: seen.get(name) for name in expected} == expected


@pytest.mark.parametrize("verb", ["train", "prep"])
def test_hostile_names_stay_names(verb, tmp_path, cluster):
    work_dir = tmp_path / HOSTILE
    config = Path("/") / (HOSTILE.replace("/", "") + "\ntouch pwned\n.yaml")
    overrides = (f"note={HOSTILE}\ntouch pwned", "data.train=[$(touch pwned)]", "x=a\\")
    result, _ = cluster(
        'printf "%s\\0" "$@" > seen; for d in run*; do touch "$d/DONE"; done',
        work_dir=work_dir,
        run_dir=work_dir / f"run{HOSTILE}",
        name=HOSTILE,
        verb=verb,
        config=config,
        overrides=overrides,
        site={"account": HOSTILE, "launcher": f"srun --comment='{HOSTILE.replace(chr(39), '')}'"},
    )
    assert result.returncode == 0, result
    arguments = (work_dir / "seen").read_text().split("\0")[:-1]
    assert arguments == ["-m", "matsci_hpc", verb, os.fspath(config), *overrides]
    assert not list(tmp_path.rglob("pwned*"))
    assert {path.name for path in tmp_path.iterdir()} == {"bin", HOSTILE, "scontrol.calls"}
    assert {path.name for path in work_dir.iterdir()} == {"env bin", f"run{HOSTILE}", "seen"}
