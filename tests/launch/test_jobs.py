"""Jobs as they stand, with a stand-in for squeue: the real one is asked in tests/slurm."""

import json
import os
from pathlib import Path

import pytest

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.cancel import cancel_jobs
from matsci_hpc.launch.jobs import show_jobs
from matsci_hpc.launch.journal import login_hosts, new_entry, read_entries, state_folder, write_entry
from matsci_hpc.launch.schedulers.slurm import Slurm


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function that puts a command with the given behaviour first on PATH."""

    def install(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        if str(path.parent) not in os.environ["PATH"].split(os.pathsep):
            monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

    return install


@pytest.fixture
def queue(command, tmp_path):
    """A function that sets squeue's answer; each question leaves a line in `asked`."""
    return lambda answer: command("squeue", f"echo \"$*\" >> '{tmp_path}/asked'\ncat <<'END'\n{answer}\nEND")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A function that puts a job into the journal, and what its script last said into its folder."""
    monkeypatch.chdir(tmp_path)

    def make(job_id, *, said=None, step=None, name="demo", verb="train", **values):
        output = tmp_path / "runs" / name
        output.mkdir(parents=True, exist_ok=True)
        if said:
            (output / "job.status").write_text(f"{said}\n")
        if step:
            (output / "metrics.jsonl").write_text(f'{{"step": 1}}\n{{"step": {step}, "loss": 0.1}}\n{{"step": 9')
        entry = {
            "scheduler": "slurm",
            "via": "script",
            "name": name,
            "verb": verb,
            "output": str(output),
            "status": str(output / "job.status"),
            "log": str(output / f"slurm-{job_id}.out"),
            "nodes": 2,
            "ranks": 4,
            "steps": 1000,
        }
        write_entry(new_entry(job_id=job_id, **entry | values))
        return output

    return make


def rows(capsys, **options):
    show_jobs(everything=True, as_json=True, **options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("queued", "said", "phase", "text"),
    [
        ("7|PENDING|Priority|0:00", None, "waiting", "waiting: Priority"),
        ("7|PENDING|None|0:00", None, "waiting", "waiting"),
        ("7|RUNNING|None|1:02:03", "7 1 running", "running", "running"),
        ("7|COMPLETING|None|5:00", "7 1 running", "running", "completing"),
        ("7|COMPLETING|None|5:00", "7 2 complete", "ended", "complete"),
        ("7|PENDING|BeginTime|0:00", "7 2 again: stopped at 40", "waiting", "waiting: BeginTime"),
        ("7|CANCELLED|None|5:00", "7 1 running", "ended", "cancelled"),
        ("7|NODE_FAIL|None|5:00", "7 1 running", "ended", "node fail"),
        ("7|FAILED|NonZeroExitCode|5:00", "7 1 failed: exit code 3", "ended", "failed: exit code 3"),
        ("7|FAILED|JobLaunchFailure|0:00", None, "ended", "failed: JobLaunchFailure"),
        ("7|FAILED|NonZeroExitCode|0:02", None, "ended", "failed"),
        ("7|CANCELLED|Dependency|0:00", None, "ended", "cancelled"),
        ("", "7 3 complete", "ended", "complete"),
        ("", "7 3 given up: after 3 lives, at step 4", "ended", "given up: after 3 lives, at step 4"),
        ("", "7 1 running", "ended", "ended without a word: cancelled, killed, or its node was lost"),
        ("", None, "ended", "ended without a word: cancelled, killed, or its node was lost"),
        ("8|RUNNING|None|1:00", "8 2 running", "running", "running"),  # goes on under another number
    ],
)
def test_how_a_job_stands(queued, said, phase, text, job, queue, capsys):
    job("7", said=said)
    queue(queued)
    (row,) = rows(capsys)
    assert (row["phase"], row["state"]) == (phase, text)
    assert row["job"] == (said.split()[0] if said else "7")


def test_jobs_of_the_same_run_are_not_taken_for_each_other(job, queue, scancel, capsys):
    # The second began while the first ran, and was refused by it: what it says is no news of the first.
    job("7")
    job("8", said="8 1 failed: exit code 2; not started again")
    queue("7|RUNNING|None|5:00\n8|FAILED|NonZeroExitCode|0:05")
    first, second = rows(capsys)
    assert (first["job"], first["state"]) == ("7", "running")
    assert (second["job"], second["state"]) == ("8", "failed: exit code 2; not started again")
    cancel_jobs(["7"])
    assert scancel() == ["7"]
    capsys.readouterr()
    queue("")  # the controller has forgotten both
    first, second = rows(capsys)
    assert first["state"] == "ended; job 8 of the same run came later"
    assert second["state"] == "failed: exit code 2; not started again"


def test_a_script_submitted_by_hand_stands_for_the_newest_job_of_its_run(job, queue, capsys):
    job("7")
    job("8", said="9 1 running")
    queue("7|CANCELLED|None|5:00\n8|CANCELLED|None|0:05\n9|RUNNING|None|0:30")
    assert [(row["job"], row["state"]) for row in rows(capsys)] == [("7", "cancelled"), ("9", "running")]


def test_steps_lives_and_shards(job, queue, capsys, tmp_path):
    job("7", said="7 3 running", step=420)
    (tmp_path / "runs/sym").mkdir()
    for number in range(2):
        (tmp_path / f"runs/sym/shard-0000{number}.h5").touch()
    job("6", name="sym", verb="prep", steps=None)
    queue("7|RUNNING|None|0:10\n6|RUNNING|None|0:12")
    show_jobs(everything=False, as_json=False)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert table == [
        ["job", "what", "state", "done", "nodes", "where"],
        ["7", "train", "running, life 3", "420/1,000 steps", "2", "runs/demo"],
        ["6", "prep", "running", "2 shards", "2", "runs/sym"],
    ]


def test_each_run_of_an_array_stands_for_itself(job, queue, capsys, tmp_path):
    outputs = tuple(str(tmp_path / f"runs/demo/seed={i}") for i in (1, 2))
    job("7", outputs=outputs)
    Path(outputs[1]).mkdir()
    Path(outputs[1], "job.status").write_text("7_1 1 complete\n")
    queue("7_0|RUNNING|None|0:10\n7_1|COMPLETED|None|0:12")
    found = [(row["job"], row["state"], row["name"]) for row in rows(capsys)]
    assert found == [("7_0", "running", "seed=1"), ("7_1", "complete", "seed=2")]


def test_the_scheduler_is_asked_once_for_all_and_not_again_at_once(job, queue, capsys, tmp_path):
    for number in range(5):
        job(str(number), name=f"run{number}")
    queue("")
    for _ in range(3):
        assert len(rows(capsys)) == 5
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    job("5")  # a new job makes the kept answer useless
    assert len(rows(capsys)) == 6
    kept = state_folder() / next(path.name for path in state_folder().glob("queue-slurm-*.json"))
    record = json.loads(kept.read_text())
    kept.write_text(json.dumps(record | {"time": record["time"] - 31}))
    rows(capsys)
    assert len((tmp_path / "asked").read_text().splitlines()) == 3


@pytest.mark.parametrize("refusal", ["qstat: Unknown Job Id 7.srv", "qstat: 7.srv Job has finished, use -x or -H to"])
def test_a_pbs_that_has_forgotten_all_jobs_has_answered(refusal, job, command, capsys):
    job("7.srv", scheduler="pbs", said="7.srv 1 running")
    command("qstat", f"echo '{refusal}' >&2; exit 153")
    show_jobs(everything=True, as_json=True)
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out)["state"].startswith("ended without a word")


def test_a_scheduler_that_does_not_answer_is_a_warning(job, command, capsys):
    job("7", said="7 1 running")
    command("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    show_jobs(everything=True, as_json=True)
    said = capsys.readouterr()
    assert "squeue does not answer: slurm_load_jobs error" in said.err
    assert json.loads(said.out)["state"] == "running"
    assert json.loads(said.out)["phase"] is None


def test_a_job_of_another_cluster_is_not_asked_for_here(job, queue, capsys, monkeypatch, tmp_path):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "otherlogin4.site.org")
        job("7", said="7 1 running")
    queue("7|FAILED|None|0:10")
    show_jobs(everything=True, as_json=False)
    assert "running (ask on otherlogin)" in capsys.readouterr().out
    assert not (tmp_path / "asked").exists()


def test_jobs_that_ended_long_ago_are_left_out(job, queue, capsys):
    job("7", said="7 1 complete")
    job("8", name="old", said="8 1 complete")
    path = state_folder() / "jobs.jsonl"
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    second["time"] = "2020-01-01T00:00:00+00:00"
    path.write_text(f"{json.dumps(first)}\ntorn {{\n{json.dumps(second | {'of_the_future': 1})}\n")
    queue("")
    show_jobs(everything=False, as_json=False)
    assert "old" not in capsys.readouterr().out
    assert len(rows(capsys)) == 2


@pytest.mark.usefixtures("job")
def test_no_jobs(capsys):
    show_jobs(everything=False, as_json=False)
    assert capsys.readouterr().out.startswith("no jobs of the last day")


@pytest.fixture
def scancel(command, tmp_path):
    command("scancel", f"echo \"$*\" >> '{tmp_path}/cancelled'")
    return lambda: (tmp_path / "cancelled").read_text().splitlines() if (tmp_path / "cancelled").exists() else []


def test_cancel_takes_what_waits_along(job, queue, scancel, capsys):
    job("1", name="prep", said="1 1 complete")
    job("2", name="pretrain", said="2 1 running", after=("1",))
    job("3", name="finetune", after=("2",))
    job("4", name="report", after=("3",))
    job("5", name="other", after=("1",))
    queue("2|RUNNING|None|0:10\n" + "\n".join(f"{n}|PENDING|Dependency|0:00" for n in (3, 4, 5)))
    cancel_jobs(["2"])
    assert scancel() == ["2 3 4"]
    said = capsys.readouterr().out
    assert "cancelled job 2: train pretrain\n" in said
    assert "cancelled job 4: train report, which waited for it" in said
    assert not list(state_folder().glob("queue-*"))  # the next question goes to the scheduler


@pytest.mark.parametrize("target", ["runs/demo", "./runs/demo/", "7"])
def test_cancel_by_folder_takes_the_job_that_lives(target, job, queue, scancel):
    job("6", said="7 1 running")
    job("7")
    queue("7|RUNNING|None|0:10")
    cancel_jobs([target])
    assert scancel() == ["7"]


def test_a_job_that_has_ended_is_not_cancelled(job, queue, scancel, capsys):
    job("7", said="7 1 complete")
    queue("")
    cancel_jobs(["7"])
    assert scancel() == []
    assert "job 7 (demo) has ended already: complete" in capsys.readouterr().out


def test_cancel_of_something_else(job, queue):
    job("7")
    queue("")
    with pytest.raises(UserInputError, match="1234: no job of this number"):
        cancel_jobs(["1234"])


@pytest.fixture
def pbs_chain(job, command):
    """Two jobs of PBS, one of which waits, and a function that sets what qdel complains of."""
    job("1.srv", scheduler="pbs", name="train", said="1.srv 1 running")
    job("2.srv", scheduler="pbs", name="report", after=("1.srv",))
    command("qstat", "printf 'Job Id: %s\\n' '1.srv|job_state=R' '2.srv|job_state=H'")

    def complain(*complaints):
        words = " ".join(f"'{each}'" for each in complaints)
        command("qdel", f"printf 'qdel: %s\\n' {words} >&2; exit 170")

    return complain


@pytest.mark.parametrize("complaint", ["Job has finished 2.srv", "Unknown Job Id 2.srv"])
def test_cancel_of_what_pbs_has_taken_along_by_itself(complaint, pbs_chain, capsys):
    pbs_chain(complaint)
    cancel_jobs(["1"])
    assert "cancelled job 2.srv: train report, which waited for it" in capsys.readouterr().out


def test_cancel_that_pbs_refuses_for_one_of_two_reasons(pbs_chain):
    pbs_chain("Unauthorized Request 1.srv", "Job has finished 2.srv")
    with pytest.raises(MachineError, match=r"qdel refused: .*Unauthorized Request"):
        cancel_jobs(["1"])


def test_cancel_that_is_refused(job, queue, command):
    job("7")
    queue("7|RUNNING|None|0:10")
    command("scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(MachineError, match=r"scancel refused: .*permission denied"):
        cancel_jobs(["7"])


def test_a_refusal_in_another_encoding_is_told(job, queue, command):
    job("7")
    queue("7|RUNNING|None|0:10")
    command("scancel", "printf 'scancel: error: acc\\351s refus\\351\\n' >&2; exit 1")
    with pytest.raises(MachineError, match="scancel refused: scancel: error: acc\ufffds refus\ufffd"):
        cancel_jobs(["7"])


def test_a_state_folder_that_cannot_be_written_to_costs_a_question_only(job, queue, scancel, tmp_path):
    job("7")
    queue("7|RUNNING|None|0:10")
    # Root may write anywhere, but nobody can replace or unlink a folder.
    cancel_jobs(["7"])
    (state_folder() / f"queue-slurm-{login_hosts()}.json").mkdir()
    cancel_jobs(["7"])
    assert scancel() == ["7", "7"]
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


def test_journal_keeps_odd_names_and_is_private(job):
    job("7", name="two\nlines 'é'")
    assert read_entries()[0].name == "two\nlines 'é'"
    assert (state_folder() / "jobs.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("elapsed", "seconds"), [("0:07", 7), ("1:02:03", 3723), ("2-01:00:00", 176400), ("INVALID", None), ("", None)]
)
def test_time_that_a_job_has_run(elapsed, seconds):
    assert Slurm().states(f"7|RUNNING|None|{elapsed}")["7"].time_s == seconds


def test_a_job_of_unequal_nodes_goes_by_its_first_part():
    states = Slurm().states("12+0|RUNNING|None|0:10\n12+1|PENDING|None|0:00\n")
    assert {job_id: state.phase for job_id, state in states.items()} == {"12": "running"}
