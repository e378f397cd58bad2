"""Studies of real runs on real ranks."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from preparation import ENVIRONMENT, PROGRAM, run_program

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.scaling.measure import measure
from matsci_hpc.scaling.study_code import hardware_of
from matsci_hpc.scaling.study_collect import collect_study, facts_of, refuse_unlike
from matsci_hpc.scaling.study_folder import StudyFolder, state_of
from matsci_hpc.scaling.study_plan import load_study, plan_runs
from matsci_hpc.scaling.study_run import runs_to_make
from matsci_hpc.scaling.table_files import read_table

pytestmark = pytest.mark.mpi
OUT = Path("studies/small")


def lines_of(run, name="metrics.jsonl"):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(clouds, tmp_path_factory):
    """A folder with a study of one and two ranks that has run."""
    folder = tmp_path_factory.mktemp("finished")
    config = {
        "run_dir": "runs/demo",
        "data": {"train": [str(clouds)]},
        "steps": 1,
        "batch": {"graphs": 12},
        "model": {"layers": 1, "width": 8, "message_width": 8, "position_width": 8, "embedding_width": 8},
    }
    study = {
        "base": "train.yaml",
        "out": str(OUT),
        "scaling": "strong",
        "axes": {"ranks": [1, 2], "backend": ["gloo"]},
        "repeats": 1,
        "warmup_steps": 2,
        "steps": 4,
        "target_loss": 1000.0,
    }
    (folder / "train.yaml").write_text(json.dumps(config))
    (folder / "study.yaml").write_text(json.dumps(study))
    done = run_program("study", "run", "study.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture
def study_copy(finished, tmp_path, monkeypatch):
    """A copy of that folder, for a test that changes something in it. Runs know their folder by a path of the plan."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return load_study(Path("study.yaml"))


def test_each_run_has_a_folder_and_a_line(finished):
    folder, said = finished
    assert said.splitlines()[0].startswith("2 runs, 0 of them complete")
    for name, ranks in (("ranks=1_backend=gloo_repeat=1", 1), ("ranks=2_backend=gloo_repeat=1", 2)):
        assert said.count(f"{name}: ") == 1
        assert "samples/s" in said
        steps = lines_of(folder / OUT / "runs" / name)
        assert [(line["step"], line["ranks"]) for line in steps] == [(step, ranks) for step in range(1, 7)]
        assert "complete after 6 steps" in (folder / OUT / "logs" / f"{name}.log").read_text()


def test_finished_runs_are_kept(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / OUT / "runs").rglob("*")}
    again = run_program("study", "run", "study.yaml", "--report", cwd=folder)
    assert again.returncode == 0
    assert again.stdout.startswith("2 runs, 2 of them complete")
    assert again.stdout.strip().endswith(str(OUT / "report" / "report.html"))
    assert {path: path.stat().st_mtime_ns for path in (folder / OUT / "runs").rglob("*")} == before


def test_the_table_says_what_the_records_say(study_copy):
    collected = collect_study(study_copy)
    assert collected.incomplete == {}
    rows = read_table(OUT / "results.csv").rows
    assert [(row.ranks, row.nodes, row.scaling, row.repeat, dict(row.labels)) for row in rows] == [
        (run.job.ranks, 1, "strong", "1", {"backend": "gloo"}) for run in plan_runs(study_copy, load_site("local"))
    ]
    for row in rows:
        kept = lines_of(OUT / "runs" / row.details["run"])[2:]  # two steps of warm-up
        time_s = math.fsum(line["step_time_s"] for line in kept)
        assert row.samples == 4 * 12
        assert row.time_s == pytest.approx(time_s, rel=1e-12)
        assert row.throughput == pytest.approx(48 / time_s, rel=1e-12)
        for part in ("data", "compute", "comm", "optimizer"):
            mean = math.fsum(line[f"{part}_time_s"] for line in kept) / 4
            assert float(row.details[f"{part}_time_s"]) == pytest.approx(mean, rel=1e-5)
        shares = [float(row.details[f"{name}_efficiency"]) for name in ("load_balance", "communication", "parallel")]
        assert shares[0] * shares[1] == pytest.approx(shares[2], rel=1e-4)
        assert all(0 < share <= 1 for share in shares)
        assert row.details["steps"] == "4"
        assert float(row.details["load_at_start"]) >= 0
        assert float(row.details["node_hours"]) == pytest.approx(kept[-1]["time_s"] / 3600, rel=1e-5)
        assert row.details["node_hours_to_target"] == "not reached"  # the mean is over ten lines, and there are six
    with (OUT / "dynamics.csv").open() as file:
        looks = {(line["run"], int(line["step"])): line for line in csv.DictReader(file)}
    for run in plan_runs(study_copy, load_site("local")):
        for line in lines_of(OUT / "runs" / run.name, "dynamics.jsonl"):
            assert float(looks.pop((run.name, line["step"]))["grad_norm"]) == pytest.approx(line["grad_norm"], rel=1e-5)
    assert not looks
    assert [(row.ranks, row.throughput) for row in read_table(OUT / "results.jsonl").rows] == [
        (row.ranks, row.throughput) for row in rows
    ]


def test_report_of_a_study(study_copy):
    done = run_program("study", "report", "study.yaml")
    assert done.returncode == 0, done.stderr
    assert str(study_copy.out / "results.csv") in done.stdout
    assert done.stdout.strip().endswith("studies/small/report/report.html")
    means = {row.ranks: row.throughput for row in read_table(OUT / "results.csv").rows}
    header, *lines = [line.split(",") for line in (OUT / "report/efficiency.csv").read_text().splitlines()]
    at = {name: header.index(name) for name in ("ranks", "throughput")}
    assert {int(line[at["ranks"]]): float(line[at["throughput"]]) for line in lines} == pytest.approx(means)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give STUDY, or measurements by --from FILE"),
        (["study.yaml", "--from", "results.csv"], "not both"),
        (["--from", "results.csv"], "--out DIR is missing"),
    ],
)
def test_a_report_has_one_source(words, says, tmp_path):
    done = run_program("study", "report", *words, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_loss_depends_on_samples_and_not_on_ranks(study_copy):
    collect_study(study_copy)
    header, *lines = [line.split(",") for line in (OUT / "loss.csv").read_text().splitlines()]
    assert header == ["run", "ranks", "repeat", "step", "samples_seen", "time_s", "loss"]
    assert len(lines) == 12
    losses = {}
    for line in lines:
        losses.setdefault(int(line[4]), []).append(float(line[6]))
    assert sorted(losses) == [12 * step for step in range(1, 7)]
    assert all(one == pytest.approx(two, rel=1e-4) for one, two in losses.values())


@pytest.mark.usefixtures("study_copy")
def test_incomplete_runs_are_listed():
    one, two = sorted((OUT / "runs").iterdir())
    (two / "DONE").unlink()
    (two / "STOPPED").write_text("the file STOP\n")
    done = run_program("study", "collect", "study.yaml", "repeats=2")
    assert done.returncode == 0, done.stderr
    assert f"not in it: {two.name}: broken off: the file STOP" in done.stdout
    absent = one.name.replace("repeat=1", "repeat=2")
    assert f"not in it: {absent}: not run yet" in done.stdout
    assert (OUT / "incomplete.txt").read_text().count("\n") == 3
    assert [row.ranks for row in read_table(OUT / "results.csv").rows] == [1]
    # The torn run begins anew, what it left is kept aside.
    again = run_program("study", "run", "study.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{two.name}: begins anew, it was broken off: the file STOP" in again.stdout
    assert [line["step"] for line in lines_of(two)] == list(range(1, 7))
    assert (OUT / "failed" / f"{two.name}.1" / "metrics.jsonl").exists()
    assert (OUT / "failed" / f"{two.name}.1.log").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [({"graphs_per_s": None}, "has no graphs_per_s at step 4"), ({"ranks": 3}, "ran on 2, 3 ranks, not 2")],
)
def test_records_that_say_too_little_are_listed_too(change, says, study_copy):
    damaged = next(run for run in plan_runs(study_copy, load_site("local")) if run.job.ranks == 2)
    lines = lines_of(damaged.job.output)
    lines[3] |= change
    (damaged.job.output / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    collected = collect_study(study_copy)
    assert [row.ranks for row in collected.rows] == [1]
    assert says in collected.incomplete[damaged.name]


def test_nothing_to_collect(make_study, clouds):
    path = make_study(clouds)
    done = run_program("study", "collect", path)
    assert done.returncode == 2
    assert "no run of the study is complete (ranks=" in done.stderr
    assert "not run yet" in done.stderr
    assert not Path("studies").exists()


def test_runs_of_another_study_are_not_taken_for_its_own(study_copy):
    refused = run_program("study", "run", "study.yaml", "steps=6")
    assert refused.returncode == 2
    assert "steps: 6 (now 8); remove " in refused.stderr
    with pytest.raises(UserInputError, match=r"was made with batch\.graphs: 12 \(now 24\)"):
        collect_study(load_study(Path("study.yaml"), ("overrides={batch.graphs: 24}",)))
    assert study_copy.steps == 4


@pytest.mark.parametrize(
    ("file", "change", "what", "says"),
    [
        ("provenance.json", {"matsci_hpc": "0.0.9"}, "code", "and 0.0.9 "),
        ("provenance.json", {"cpu": "Z80"}, "hardware", "and Z80, threads"),
        ("data.json", None, "data", "and 0123"),
    ],
)
def test_unlike_runs_are_not_compared(file, change, what, says, study_copy):
    second = plan_runs(study_copy, load_site("local"))[1].job.output
    known = json.loads((second / file).read_text())
    changed = known | change if change else [known[0] | {"fingerprint": "0123"}]
    (second / file).write_text(json.dumps(changed))
    with pytest.raises(UserInputError, match=f"of one series and differ in {what}: .*{says}") as refused:
        collect_study(study_copy)
    assert f"allow: [{what}]" in str(refused.value)
    allowed = study_copy.model_copy(update={"allow": [what]})
    assert len(collect_study(allowed).rows) == 2
    if what == "code":
        started = run_program("study", "run", "study.yaml", "repeats=2")
        assert started.returncode == 2
        assert f"{second.name} ran by 0.0.9 " in started.stderr


def test_only_runs_of_one_series_must_be_alike(make_study):
    study = load_study(make_study(axes={"ranks": [1, 2], "graphs": [12, 24]}))
    runs = plan_runs(study, load_site("local"))
    facts = [(run, facts_of(run, {})) for run in runs]
    facts[0] = (facts[0][0], facts[0][1] | {"data": "0123"})
    other = next(place for place, (run, _) in enumerate(facts) if run.labels != facts[0][0].labels)
    refuse_unlike(study, [facts[0], facts[other]])
    with pytest.raises(UserInputError, match=r"differ in data: 0123 and unknown.*allow: \[data\]"):
        refuse_unlike(study, facts)


def test_more_gpus_of_a_kind_are_no_other_hardware():
    one, two = ({"cpu": "a", "gpus": ["H100"] * count} for count in (1, 2))
    assert hardware_of(one) == hardware_of(two) == "a, H100"
    assert hardware_of({"cpu": "a", "gpus": ["H100", "A100"]}) != hardware_of(two)


def test_an_extended_study_does_not_mix_threads(study_copy, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run = plan_runs(study_copy, load_site("local"))[0]
    had = json.loads((run.job.output / "provenance.json").read_text())["environment"]["OMP_NUM_THREADS"]
    larger = study_copy.model_copy(update={"axes": study_copy.axes | {"ranks": [1, 2, 4]}})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4 * (int(had) + 1))))
    site, folder = load_site("local"), StudyFolder(larger)
    with pytest.raises(UserInputError, match=f"with {had} threads of a rank, and the runs to come would have"):
        runs_to_make(larger, site, folder, plan_runs(larger, site))
    allowed = larger.model_copy(update={"allow": ["hardware"]})
    assert len(runs_to_make(allowed, site, folder, plan_runs(allowed, site))) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", had)
    assert len(runs_to_make(larger, site, folder, plan_runs(larger, site))) == 1


def test_a_run_that_was_requeued_is_pointed_out(study_copy):
    run = next(run for run in plan_runs(study_copy, load_site("local")) if run.job.ranks == 2)
    lines = lines_of(run.job.output)
    for line in lines[3:]:
        line["life"] = 1
    (run.job.output / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    warm = study_copy.model_copy(update={"warmup_steps": 1, "steps": 5})  # the same number of steps in all
    assert collect_study(warm).lives == {run.name: 2}
    done = run_program("study", "report", "study.yaml", "warmup_steps=1", "steps=5")
    assert done.returncode == 0, done.stderr
    assert f"in it, but restarted: {run.name}: its times are of 2 lives" in done.stdout
    assert f"Restarted while they ran, so that their times are of several lives: {run.name}." in done.stderr
    known = json.loads((run.job.output / "provenance.json").read_text())
    earlier = {key: known[key] for key in ("matsci_hpc", "git", "cpu", "gpus")}
    for change, what in (({"git": "0123"}, "code"), ({"cpu": "Z80"}, "hardware"), ({}, None)):
        changed = known | {"earlier_lives": [earlier | change]}
        (run.job.output / "provenance.json").write_text(json.dumps(changed))
        if what is None:
            collect_study(warm)
            continue
        with pytest.raises(UserInputError, match=f"differ in {what}: .* after "):
            collect_study(warm)


def test_weak_scaling_keeps_the_batch_of_a_rank(make_study):
    study = load_study(make_study(scaling="weak", axes={"ranks": [1, 2, 4], "graphs_per_rank": [3]}))
    runs = plan_runs(study, load_site("local"))
    assert {run.config.batch.graphs for run in runs} == {3, 6, 12}


@pytest.mark.slow
def test_failed_runs_are_named_and_tried_again(make_study, tmp_path):
    path = make_study(axes={"ranks": [2], "threads": [1]})
    failed = run_program("study", "run", path)
    assert failed.returncode == 2
    assert failed.stdout.count("failed with exit code 2: ") == 1
    assert f"{tmp_path}/studies/small/logs/" in failed.stdout
    assert "not complete: ranks=" in failed.stderr
    again = run_program("study", "run", path, "prepare=[prep.yaml]")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"prepared {tmp_path}/datasets/clouds in " in again.stdout
    collected = collect_study(load_study(path))
    assert {(row.ranks, row.labels["threads"]) for row in collected.rows} == {(2, "1")}


def test_a_study_that_is_stopped_goes_on(make_study, clouds):
    path = make_study(clouds, axes={"ranks": [2]}, warmup_steps=10, steps=290, log_every=10)
    study = load_study(path)
    (run,) = plan_runs(study, load_site("local"))
    words = [*PROGRAM, "study", "run", str(path)]
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as going:
        metrics = run.job.output / "metrics.jsonl"
        while going.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 1):
            time.sleep(0.01)
        locked = run_program("study", "run", path)
        going.send_signal(signal.SIGINT)
        said, _ = going.communicate(timeout=120)
    assert (locked.returncode, "is at work on this study" in locked.stderr) == (2, True)
    assert going.returncode == 130, said
    assert f"{run.name}: stopped after" in said
    assert "the same command goes on from here" in said
    assert state_of(run).standing == "broken off"
    done = run_program("study", "run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = measure(run, study.warmup_steps)
    assert (found.details["steps"], found.details["lives"], found.samples) == (290, 1, 290 * 12)


def test_scaling_of_a_preparation(make_study):
    path = make_study(base="prep.yaml", scaling="weak", axes={"ranks": [1, 2]})
    done = run_program("study", "run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = collect_study(load_study(path)).rows
    assert {(row.ranks, row.samples) for row in rows} == {(1, 48), (2, 96)}
    for row in rows:
        record = json.loads((OUT / "runs" / row.details["run"] / "provenance.json").read_text())
        assert (row.time_s, row.ranks) == (record["time_s"], record["ranks"])
        assert row.throughput == pytest.approx(row.samples / row.time_s)
