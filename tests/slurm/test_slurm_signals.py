"""When Slurm signals a job and whom: what job scripts build on, seen on this cluster."""

import sys

import pytest

# Rank 0 and the batch shell write down each signal; a task dies at the third, a shell goes on until it is killed.
TASK = """\
import os, signal, time
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: print("task got", signal.Signals(number).name, flush=True))
print("task is ready", flush=True)
time.sleep(300)
time.sleep(300)
time.sleep(300)
"""
SHELL = """\
for name in TERM USR1; do trap "echo shell got SIG$name" $name; done
echo life ${{SLURM_RESTART_COUNT:-0}}
[ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] || exit 0
srun {python} {task} &
while kill -0 $! 2>/dev/null; do wait $!; done
sleep 300
"""


@pytest.fixture
def submit_listener(cluster, tmp_path):
    """Submit a job that writes down what it gets, and wait until it listens."""

    def submit(*options):
        (tmp_path / "task.py").write_text(TASK)
        script = SHELL.format(python=sys.executable, task=tmp_path / "task.py")
        job = cluster.sbatch(script, *options)
        cluster.wait_for_line(job, "task is ready")
        return job

    return submit


def first_life(log):
    """Who got what in the first life, each once, in this order."""
    return list(dict.fromkeys(line for line in log.partition("life 1")[0].splitlines() if " got SIG" in line))


def preempt(cluster, job):
    """Let a job of the partition `high` take the place of this one, and give the log of its first life."""
    node = ["--nodes=1", "--nodelist=n1", "--exclusive"]
    urgent = cluster.sbatch("true", "--partition=high", *node)
    cluster.wait_for(urgent, "COMPLETED", timeout_s=180)
    assert cluster.wait_for(job, "COMPLETED", timeout_s=120)["Restarts"] == "1"
    log = cluster.log(job)
    assert "DUE TO PREEMPTION" in log
    return first_life(log)


def test_a_preempted_batch_shell_gets_its_own_signal_first(cluster, submit_listener):
    job = submit_listener("--partition=low", "--nodelist=n1", "--exclusive", "--signal=B:USR1@60")
    assert preempt(cluster, job)[0] == "shell got SIGUSR1"


def test_without_one_the_tasks_alone_are_warned_by_sigterm(cluster, submit_listener):
    job = submit_listener("--partition=low", "--nodelist=n1", "--exclusive")
    got = preempt(cluster, job)
    assert got[0] == "task got SIGTERM"
    assert "shell got SIGUSR1" not in got


def test_near_the_time_limit_the_batch_shell_alone_is_told(cluster, submit_listener):
    job = submit_listener("--time=1", "--signal=B:USR1@30")
    log = cluster.wait_for_line(job, "shell got SIGUSR1", timeout_s=120)
    assert first_life(log) == ["shell got SIGUSR1"]


def test_a_heterogeneous_job_is_requeued_by_its_first_number(cluster):
    script = """\
#SBATCH --nodelist=n2
#SBATCH hetjob
#SBATCH --nodelist=n1
echo life ${SLURM_RESTART_COUNT:-0}
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || exit 0
scontrol requeue "$SLURM_JOB_ID_HET_GROUP_1"
scontrol requeue "$SLURM_JOB_ID"
sleep 300
"""
    job = cluster.sbatch(script)
    cluster.wait_for(job, "COMPLETED")
    assert [part["Restarts"] for part in cluster.jobs(job)] == ["1", "1"]
    log = cluster.log(job)
    assert "Job not heterogeneous job leader" in log
    assert log.index("life 0") < log.index("life 1")
