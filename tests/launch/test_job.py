import sys
from pathlib import Path

import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.job import describe_job

TRAIN = "run_dir: runs/demo\nsteps: 3\ndata: {train: [d]}\nbatch: {graphs: 4}\n"
PREP = "source: {kind: symmetry, samples: 9}\nout: datasets/sym\nneighbors: {cutoff: 2}\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("a.yaml").write_text(text)
        return Path("a.yaml")

    return write


def test_training(config, tmp_path, make_site):
    job = describe_job(config(TRAIN), ["steps=5"], make_site(cpus_per_rank=2, memory="1G"), nodes=None, ranks=None)
    assert (job.verb, job.name, job.run_dir) == ("train", "demo", tmp_path / "runs/demo")
    assert job.script == tmp_path / "runs/demo/job.sbatch"
    assert job.command == (sys.executable, "-m", "matsci_hpc", "train", f"{tmp_path}/a.yaml", "steps=5")
    assert (job.cpus_per_rank, job.memory, job.work_dir) == (2, "1G", tmp_path)


def test_preparation(config, tmp_path, make_site):
    job = describe_job(config(PREP), [], make_site(), nodes=None, ranks=None)
    assert (job.verb, job.name, job.run_dir) == ("prep", "sym", tmp_path / "datasets")
    assert job.script == tmp_path / "datasets/sym.sbatch"


def test_an_override_moves_the_run(config, make_site):
    job = describe_job(config(TRAIN), ["run_dir=/x/../y z"], make_site(), nodes=None, ranks=None)
    assert job.run_dir == Path("/y z")


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
    job = describe_job(config(TRAIN), [], make_site(ranks_per_node=per_node), nodes=nodes, ranks=ranks)
    assert (job.nodes, job.ranks_per_node) == expected


@pytest.mark.parametrize(
    ("nodes", "ranks", "site", "says"),
    [
        (2, 5, {}, "cannot be divided evenly"),
        (None, 7, {"ranks_per_node": 4}, "cannot be divided evenly over 2 nodes"),
        (0, None, {}, "nodes must be at least 1"),
        (None, -1, {}, "ranks must be at least 1"),
        (2, None, {"scheduler": "local"}, "one node"),
    ],
)
def test_numbers_that_do_not_fit(nodes, ranks, site, says, config, make_site):
    with pytest.raises(UserInputError, match=says):
        describe_job(config(TRAIN), [], make_site(**site), nodes=nodes, ranks=ranks)


@pytest.mark.parametrize("text", ["steps: 3", "out: x", "source: {}", TRAIN + PREP, "[]", "", "a: [", "a: 1\na: 2"])
def test_config_without_a_verb(text, config, make_site):
    with pytest.raises(UserInputError, match=r"a\.yaml"):
        describe_job(config(text), [], make_site(), nodes=None, ranks=None)


def test_config_that_is_not_there(tmp_path, make_site):
    with pytest.raises(UserInputError, match="cannot read the config"):
        describe_job(tmp_path / "none.yaml", [], make_site(), nodes=None, ranks=None)


@pytest.mark.parametrize("override", ["steps", "=3", "--steps=3"])
def test_wrong_override(override, config, make_site):
    with pytest.raises(UserInputError, match="override"):
        describe_job(config(TRAIN), [override], make_site(), nodes=None, ranks=None)


@pytest.mark.parametrize("value", ["", "3", "''", "."])
def test_run_dir_must_be_a_folder(value, config, make_site):
    text = TRAIN.replace("run_dir: runs/demo", f"run_dir: {value}")
    with pytest.raises(UserInputError, match=r"a\.yaml:1: run_dir: "):
        describe_job(config(text), [], make_site(), nodes=None, ranks=None)
