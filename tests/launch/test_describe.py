import sys
from pathlib import Path

import pytest

from matsci_hpc.config.job import JobRequest
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.describe import describe_job, describe_report, spread

TRAIN = "run_dir: runs/demo\nsteps: 3\ndata: {train: [d]}\nbatch: {graphs: 4}\n"
PREP = "source: {kind: symmetry, samples: 9}\nout: datasets/sym\nneighbors: {cutoff: 2}\n"
KINDS = {
    "gpu": {"partition": "gpu", "gpus_per_rank": 1, "ranks_per_node": 4, "speed": 8, "options": ["--exclusive"]},
    "cpu": {"partition": "cpu", "memory": "9G"},
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("a.yaml").write_text(text)
        return Path("a.yaml")

    return write


def test_training(config, tmp_path, make_site):
    site = make_site(cpus_per_rank=2, memory="1G", time_limit="01:00:00")
    job = describe_job(config(TRAIN), ["steps=5"], site)
    assert (job.verb, job.name, job.output, job.steps) == ("train", "demo", tmp_path / "runs/demo", 5)
    assert job.stem == tmp_path / "runs/demo/job"
    assert job.marker == tmp_path / "runs/demo/DONE"
    assert job.reads == (tmp_path / "d",)
    assert job.command == (sys.executable, "-m", "matsci_hpc", "train", f"{tmp_path}/a.yaml", "steps=5")
    (component,) = job.components
    assert (component.cpus_per_rank, component.memory) == (2, "1G")
    assert (job.work_dir, job.time_limit) == (tmp_path, "01:00:00")


def test_preparation(config, tmp_path, make_site):
    job = describe_job(config(PREP), [], make_site())
    assert (job.verb, job.name, job.output, job.reads) == ("prep", "sym", tmp_path / "datasets/sym", ())
    assert (job.folder, job.stem) == (tmp_path / "datasets", tmp_path / "datasets/sym")
    assert (job.status, job.marker) == (tmp_path / "datasets/sym.status", tmp_path / "datasets/sym/dataset.json")


def test_a_report_takes_one_rank(config, tmp_path, make_site):
    site = make_site(ranks_per_node=4, gpus_per_rank=1, time_limit="1-00:00:00")
    job = describe_report(describe_job(config(TRAIN), [], site), site)
    assert (job.name, job.ranks, job.components[0].gpus_per_rank) == ("demo-report", 1, 0)
    assert job.arguments == ("report", f"{tmp_path}/runs/demo")
    assert job.time_limit == "00:30:00"


def test_an_override_moves_the_run(config, make_site):
    assert describe_job(config(TRAIN), ["run_dir=/x/../y z"], make_site()).output == Path("/y z")


@pytest.mark.parametrize(
    ("per_node", "nodes", "ranks", "expected"),
    [
        (4, None, None, (1, 4)),
        (4, 3, None, (3, 4)),
        (4, None, 9, (3, 3)),
        (4, None, 2, (1, 2)),
        (4, None, 8, (2, 4)),
        (4, 4, 4, (4, 1)),
        (1, 1, 6, (1, 6)),
    ],
)
def test_division_over_nodes(per_node, nodes, ranks, expected, config, make_site):
    job = describe_job(config(TRAIN), [], make_site(ranks_per_node=per_node), JobRequest(nodes=nodes, ranks=ranks))
    (component,) = job.components
    assert (component.nodes, component.ranks_per_node) == expected


@pytest.mark.parametrize(
    ("asked", "site", "says"),
    [
        ({"nodes": 2, "ranks": 5}, {}, "cannot be divided evenly"),
        ({"ranks": 7}, {"ranks_per_node": 4}, "cannot be divided evenly over 2 nodes"),
        ({"nodes": 2}, {"scheduler": "local"}, "one node"),
        ({"nodes": {"tpu": 2}}, {}, "no nodes of kind 'tpu'; it has no node_kinds"),
        ({"nodes": {"tpu": 2}}, {"node_kinds": KINDS}, "no nodes of kind 'tpu'; it knows gpu, cpu"),
        ({"time_limit": "00:02:00"}, {}, "00:02:00 leaves no time to work: .* stop 120 s before their end"),
        ({}, {"scheduler": "pbs"}, "give a time limit .*pbs warns no job before its end"),
        ({"nodes": {"gpu": 2}, "ranks": 3}, {"node_kinds": KINDS}, "without ranks"),
    ],
)
def test_numbers_that_do_not_fit(asked, site, says, config, make_site):
    with pytest.raises(UserInputError, match=says):
        describe_job(config(TRAIN), [], make_site(**site), JobRequest(**asked))


def test_command_line_over_config_over_site(config, make_site):
    text = TRAIN + "job: {nodes: 3, cpus_per_rank: 5, memory: 7G, time_limit: '00:10:00'}\n"
    site = make_site(ranks_per_node=2, cpus_per_rank=4, memory="1G", gpus_per_rank=1)
    job = describe_job(config(text), [], site)
    (component,) = job.components
    assert (job.nodes, job.ranks, job.time_limit) == (3, 6, "00:10:00")
    assert (component.cpus_per_rank, component.memory, component.gpus_per_rank) == (5, "7G", 1)
    job = describe_job(config(text), ["job.gpus_per_rank=0"], site, JobRequest(ranks=2, time_limit="00:20:00"))
    assert (job.nodes, job.ranks, job.time_limit, job.components[0].gpus_per_rank) == (1, 2, "00:20:00", 0)


def test_unequal_nodes(config, make_site):
    site = make_site(options=["--constraint=x"], node_kinds=KINDS, cpus_per_rank=3)
    job = describe_job(config(TRAIN), [], site, JobRequest(nodes={"gpu": 1, "cpu": 2}))
    gpu, cpu = job.components
    assert (job.nodes, job.ranks) == (3, 6)
    assert (gpu.partition, gpu.ranks, gpu.gpus_per_rank) == ("gpu", 4, 1)
    assert gpu.options == ("--constraint=x", "--exclusive")
    assert (cpu.partition, cpu.ranks, cpu.memory, cpu.cpus_per_rank) == ("cpu", 2, "9G", 3)
    assert job.overrides == ("balance.speeds=[8, 8, 8, 8, 1, 1]",)


def test_speeds_of_the_user_stay(config, make_site):
    site = make_site(node_kinds=KINDS)
    text = TRAIN + "balance: {speeds: [2, 2, 2, 2, 1]}\n"
    job = describe_job(config(text), [], site, JobRequest(nodes={"gpu": 1, "cpu": 1}))
    assert job.overrides == ()


def test_an_array_has_a_folder_for_each_run(config, tmp_path, make_site):
    job = spread(describe_job(config(TRAIN), ["run_dir=it's"], make_site()), "optimizer.lr", ["1e-3", "2e-3"])
    first, second = job.elements
    assert first.overrides == ("optimizer.lr=1e-3", f"run_dir='{tmp_path}/it''s/optimizer.lr=1e-3'")
    assert second.output == tmp_path / "it's/optimizer.lr=2e-3"


@pytest.mark.parametrize(
    ("text", "key", "values", "says"),
    [
        (PREP, "seed", ["1"], "only training runs"),
        (TRAIN, "run_dir", ["a"], "cannot differ in run_dir"),
        (TRAIN, "job.nodes", ["1", "2"], "cannot differ in job.nodes"),
        (TRAIN, "seed", ["1", "1"], "stands twice"),
        (TRAIN, "data.train", ["[a/b]", "[a_b]"], "would share a folder"),
        (TRAIN, "steps", ["1", "-1"], "steps"),
    ],
)
def test_arrays_that_cannot_be(text, key, values, says, config, make_site):
    with pytest.raises(UserInputError, match=says):
        spread(describe_job(config(text), [], make_site()), key, values)


@pytest.mark.parametrize("text", ["steps: 3", "out: x", "source: {}", TRAIN + PREP, "[]", "", "a: [", "a: 1\na: 2"])
def test_config_without_a_verb(text, config, make_site):
    with pytest.raises(UserInputError, match=r"a\.yaml"):
        describe_job(config(text), [], make_site())


def test_config_that_is_not_there(tmp_path, make_site):
    with pytest.raises(UserInputError, match="cannot read the config"):
        describe_job(tmp_path / "none.yaml", [], make_site())


@pytest.mark.parametrize("override", ["steps", "=3", "--steps=3"])
def test_wrong_override(override, config, make_site):
    with pytest.raises(UserInputError, match="override"):
        describe_job(config(TRAIN), [override], make_site())


@pytest.mark.parametrize("value", ["", "3", "''", "."])
def test_run_dir_must_be_a_folder(value, config, make_site):
    text = TRAIN.replace("run_dir: runs/demo", f"run_dir: {value}")
    with pytest.raises(UserInputError, match=r"a\.yaml:1: run_dir: "):
        describe_job(config(text), [], make_site())


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("{nodes: 0}", "job.nodes"),
        ("{nodes: {gpu: 0}}", "job.nodes"),
        ("{time_limit: 90}", "job.time_limit"),
        ("{memory: lots}", "job.memory"),
        ("{node: 1}", "did you mean nodes"),
    ],
)
def test_wrong_request(job, says, config, make_site):
    with pytest.raises(UserInputError, match=says):
        describe_job(config(f"{TRAIN}job: {job}\n"), [], make_site())
