"""Jobs through submitit on a real Slurm without accounting: `matsci_hpc.launch.submit` and `--via submitit`."""

import re
import sys
from ast import literal_eval
from pathlib import Path

import pytest
from launching import LoginNode, steps_logged, wait_until
from site_file import write_site
from soak import seen_by_epoch
from submitit.core.utils import FailedJobError, UncompletedJobError

from matsci_hpc.launch import submit
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.submitit_job import FORGOTTEN, SubmititJob
from matsci_hpc.launch.via_submitit import SubmititDesk

FOR_EVER = 1_000_000


@pytest.fixture(scope="module")
def data(cluster, tmp_path_factory):
    """Clouds that this machine prepared by itself."""
    node = LoginNode(cluster, tmp_path_factory.mktemp("data"))
    node.run("prep", node.prep_config())
    return node.folder / "datasets/clouds"


@pytest.fixture
def node(cluster, tmp_path, monkeypatch):
    """A login node, which this process is on."""
    for name in ("SLURM_CONF", "PYTHONPATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(SubmititJob, "_results_timeout_s", 2)  # no slow file system here
    monkeypatch.chdir(tmp_path)
    return LoginNode(cluster, tmp_path)


@pytest.fixture
def begin(node, data):
    """A function that submits a run without an end, on a rank of each node, and waits for its first steps."""

    def begin(time_limit=None, **site):
        node.train_config(data, steps=FOR_EVER, record_samples=True)
        write_site(node.site, **site)
        job = submit("run.yaml", site=str(node.site), nodes=2, ranks=2, time_limit=time_limit)
        wait_alive(job, lambda: steps_logged(run_of(node)), "it trains")
        return job

    return begin


def run_of(node):
    return node.folder / "runs/run"


def wait_alive(job, holds, what):
    """Wait; it is an error if the job ends before."""

    def reached():
        over = job.watcher.is_done(job.job_id)
        found = holds()
        assert found or not over, f"job {job.job_id} is {job.state} before {what}: {job.stdout()}"
        return found

    wait_until(reached, what)


def wait_for_words(job, words):
    """Wait until the job script says this of the job."""
    path = Path(job.paths.folder).with_suffix(".status")
    wait_alive(job, lambda: path.exists() and words in path.read_text(), words)


def assert_goes_on(node, data, job):
    """Once the first life has saved, let the next one be the last: it reads the config anew. No sample comes twice."""
    wait_for_words(job, "again: stopped at ")
    stopped = int((run_of(node) / "job.status").read_text().split()[-1])
    assert not list(Path(job.paths.folder).glob("*_result.pkl")), "a life that goes on later has left a result"
    steps = stopped + 5
    node.train_config(data, steps=steps, record_samples=True)
    assert job.results() == [{"step": steps, "complete": True, "reason": None}] * 2
    assert [(line["step"], line["life"]) for line in steps_logged(run_of(node))] == [
        (step, int(step > stopped)) for step in range(1, steps + 1)
    ]
    assert all(set(seen.values()) == {1} for seen in seen_by_epoch(run_of(node)).values())


def test_the_example_of_the_documentation(node):
    node.prep_config("prep")
    node.train_config("datasets/prep", "train")
    write_site(node.folder / "my_cluster.yaml")
    page = (Path(__file__).parents[2] / "docs/submitit.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)[1]
    printed = node.cluster.run(sys.executable, "-c", example, timeout_s=300).splitlines()[-1]
    assert printed in page
    assert literal_eval(printed) == {"step": 12, "complete": True, "reason": None}


def test_a_chain_gives_the_results_of_all_ranks(node):
    node.prep_config("prep")
    run = node.folder / 'it\'s a "$(touch pwned)" run'
    node.train_config("datasets/prep", "train", run_dir=str(run))
    made = submit("prep.yaml", site=str(node.site), nodes=2, ranks=2)
    trained = submit("train.yaml", site=str(node.site), nodes=2, ranks=4, after=[made])
    assert trained.results() == [{"step": 12, "complete": True, "reason": None}] * 4
    assert made.result() == {"samples": 240, "shards": 15}
    assert "by 2 ranks" in made.stdout()
    assert "on 4 ranks by srun" in trained.stdout()
    assert not list(node.folder.rglob("pwned"))
    preview = SubmititDesk().preview(trained.description, load_site(str(node.site)), [made.job_id])
    assert preview.startswith(trained.paths.submission_file.read_text())
    assert f"--dependency=afterok:{made.job_id} " in preview


def test_a_time_limit_is_followed_by_another_life(node, data, begin):
    # Slurm's shortest limit. It looks at limits every 30 s, and signals up to 30 s early: here from second 15 on.
    assert_goes_on(node, data, begin(time_limit="00:01:00", signal_before_end_s=15))


@pytest.mark.parametrize("signal", ["TERM", "USR2"])
def test_ranks_that_are_signalled_save_together(signal, node, data, begin):
    job = begin()
    node.cluster.run("scancel", f"--signal={signal}", job.job_id)
    wait_alive(job, (run_of(node) / "STOPPED").exists, "it has saved")
    assert (run_of(node) / "STOPPED").read_text() in {f"signal SIG{signal}\n", "another rank was asked to\n"}
    assert_goes_on(node, data, job)


def test_a_preempted_job_goes_on(cluster, node, data, begin):
    job = begin(partition="low")
    urgent = cluster.sbatch("true", "--partition=high", "--nodes=2", "--exclusive", f"--output={node.folder}/%j.out")
    assert_goes_on(node, data, job)
    assert cluster.wait_for(urgent, "COMPLETED")


def test_a_cancelled_job_is_noticed(begin):
    job = begin()
    job.cancel()
    with pytest.raises(UncompletedJobError, match=r"ended without a result \(state: CANCELLED\)(?s:.*)step 1/"):
        job.result()
    assert job.state == "CANCELLED"


def test_a_killed_job_is_noticed(cluster, begin):
    job = begin()
    cluster.run("scancel", "--signal=KILL", f"{job.job_id}.0")
    with pytest.raises(UncompletedJobError, match=r"state: FAILED\)\nits script says: failed: exit code 137"):
        job.result()


def test_a_job_that_the_controller_has_forgotten_has_ended(node):
    job = SubmititJob(run_of(node) / "job.submitit", "7")
    assert job.done()
    assert job.state == FORGOTTEN
    assert "there is no log" in str(job.exception())


def test_a_stop_by_hand_is_a_result(node, begin):
    job = begin()
    (run_of(node) / "STOP").touch()
    result = job.result()
    assert result["complete"] is False
    assert result["reason"].endswith("STOP appeared")
    assert 0 < result["step"] < FOR_EVER
    wait_for_words(job, "stopped: by hand")


def test_a_failure_is_raised_with_its_reason(node):
    node.train_config("nowhere")
    job = submit("run.yaml", site=str(node.site), nodes=1, ranks=2, check=False)
    with pytest.raises(FailedJobError, match=r"UserInputError: (?s:.*)nowhere"):
        job.result()
    wait_for_words(job, "failed: exit code 2;")


def test_a_life_without_progress_is_the_last(node, data):
    node.train_config(data)
    # Every life is asked to stop before its first step.
    write_site(node.site, time_limit=None, setup=[f"echo preempted >'{run_of(node)}/STOP'"])
    job = submit("run.yaml", site=str(node.site), nodes=1, ranks=2)
    with pytest.raises(UncompletedJobError, match=r"its script says: given up: no new checkpoint in this life"):
        job.result()


def test_a_chain_from_the_command_line(cluster, node):
    configs = node.train_config("datasets/clouds"), node.prep_config()
    jobs = node.submit(*configs, "--nodes", 2, "--ranks", 2, "--report", "--via", "submitit")
    assert len(jobs) == 3
    cluster.wait_for(jobs[-1], "COMPLETED", timeout_s=300)
    report = run_of(node) / "report.html"
    assert report.exists()
    assert SubmititJob(report.with_suffix(".submitit"), jobs[-1]).result() == {"report": str(report)}
    assert {job: each["state"] for job, each in node.standings().items()} == dict.fromkeys(jobs, "complete")
