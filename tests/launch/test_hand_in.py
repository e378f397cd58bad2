"""A chain handed to each scheduler, shown and cancelled, with stand-ins for the scheduler's commands."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from matsci_hpc.launch.cancel import cancel_jobs
from matsci_hpc.launch.jobs import show_jobs
from matsci_hpc.launch.journal import read_entries
from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.start import Wish, start

TRAIN = "run_dir: runs/my run\nsteps: 3\ndata: {train: [datasets/sym]}\nbatch: {graphs: 4}\n"
PREP = "source: {kind: symmetry, samples: 9}\nout: datasets/sym\nneighbors: {cutoff: 2}\n"


@dataclass(frozen=True)
class Counter:
    """The commands of a scheduler, and what they answer; {n} is the number of the submission."""

    submit: str
    answer: str
    first: str
    second: str
    after: str
    query: str
    queue: str
    cancel: str


COUNTERS = {
    "slurm": Counter(
        "sbatch", "{n}", "1", "2", "--dependency=afterok:1", "squeue", "2|PENDING|Dependency|0:00", "scancel"
    ),
    "pbs": Counter(
        "qsub",
        "{n}.srv",
        "1.srv",
        "2.srv",
        "-W depend=afterok:1.srv",
        "qstat",
        "Job Id: 2.srv|Job_Name=my_run|job_state=H",
        "qdel",
    ),
    "lsf": Counter(
        "bsub",
        "Job <{n}> is submitted to queue <normal>.",
        "1",
        "2",
        "-w done(1) -ti",
        "bjobs",
        "2|PEND|-|Job dependency condition not satisfied",
        "bkill",
    ),
    "flux": Counter("flux", "{n}", "1", "2", "--dependency=afterok:1", "flux", "2|DEPEND|0", "flux"),
}


@pytest.fixture
def counter(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = COUNTERS[request.param]
    (tmp_path / "site.yaml").write_text(f"scheduler: {request.param}\ntime_limit: '01:00:00'\n")
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "prep.yaml").write_text(PREP)
    submits = f"""
        cat >"$CALLS/stdin.$(ls "$CALLS" | wc -l)"; echo "$*" >>"$CALLS/submit"
        n=$(wc -l <"$CALLS/submit"); echo "{made.answer.format(n="$n")}" """
    asks = f'echo "$*" >>"$CALLS/query"; cat <<\'END\'\n{made.queue.replace("{{", "{").replace("}}", "}")}\nEND'
    takes = 'echo "$*" >>"$CALLS/cancel"'
    texts = {made.submit: submits, made.query: asks, made.cancel: takes}
    if request.param == "flux":
        texts = {"flux": f"case $1 in batch) {submits} ;; jobs) {asks}\n;; cancel) {takes} ;; esac"}
    for name, text in texts.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    (tmp_path / "calls").mkdir()
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return request.param, made


@pytest.mark.parametrize("counter", COUNTERS, indirect=True)
def test_a_chain_from_submission_to_cancel(counter, tmp_path, capsys):
    name, made = counter
    scheduler = SCHEDULERS[name]
    runs = [(Path("train.yaml"), ()), (Path("prep.yaml"), ())]
    start(Wish(runs=runs, site="./site.yaml", check=False), dry_run=False)
    said = capsys.readouterr().out
    assert f"job {made.first}: prep" in said
    assert f"job {made.second}: train" in said
    prep, train = (tmp_path / "calls/submit").read_text().splitlines()
    assert made.after not in prep
    assert made.after in train
    scripts = [tmp_path / f"datasets/sym{scheduler.suffix}", tmp_path / f"runs/my run/job{scheduler.suffix}"]
    given = [path.read_text() for path in sorted((tmp_path / "calls").glob("stdin.*"))]
    assert given == ([path.read_text() for path in scripts] if scheduler.reads_stdin else ["", ""])
    assert [str(path) in line for path, line in zip(scripts, (prep, train), strict=True)] == [
        not scheduler.reads_stdin
    ] * 2
    assert [entry.log for entry in read_entries()] == [
        str(tmp_path / f"datasets/{name}-{made.first}.out"),
        str(tmp_path / f"runs/my run/{name}-{made.second}.out"),
    ]

    # The first has said that it is done; nobody needs to be asked for it.
    (tmp_path / "datasets/sym.status").write_text(f"{made.first} 1 complete\n")
    show_jobs(everything=True, as_json=False)
    table = capsys.readouterr().out.splitlines()
    assert "complete" in table[1]
    assert "waiting" in table[2]
    (question,) = (tmp_path / "calls/query").read_text().splitlines()
    assert made.first not in question.split()

    cancel_jobs(["2"])
    assert (tmp_path / "calls/cancel").read_text().split()[-1] == made.second
    assert f"cancelled job {made.second}: train" in capsys.readouterr().out


@pytest.mark.parametrize("counter", ["pbs", "flux"], indirect=True)
def test_a_job_is_followed_to_its_next_number(counter, tmp_path, capsys):
    name, made = counter
    start(Wish(runs=[(Path("train.yaml"), ())], site="./site.yaml", check=False), dry_run=False)
    (tmp_path / "runs/my run/job.status").write_text(f"{made.second} 2 queued\n")
    capsys.readouterr()
    show_jobs(everything=True, as_json=False)
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith(f"{made.second} ")
    assert "waiting" in row
    assert "life 2" in row
    cancel_jobs([made.first])
    assert (tmp_path / "calls/cancel").read_text().split()[-1] == made.second
    assert name in read_entries()[0].log
