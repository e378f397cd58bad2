import subprocess
import sys
from pathlib import Path

import pytest
from ranks import environment

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.start import Wish, plan_chain, start
from matsci_hpc.preflight.quick import quick_findings, refuse_impossible

SITE = {"scheduler": "slurm", "ranks_per_node": 2, "cores_per_node": 4, "time_limit": "01:00:00"}
PREP = "source: {kind: symmetry, samples: 90}\nout: datasets/sym\nneighbors: {cutoff: 2}\nshard_size: 30\n"


@pytest.fixture
def here(tmp_path, monkeypatch, train_config):
    monkeypatch.chdir(tmp_path)
    Path("prep.yaml").write_text(PREP)
    train_config()
    return tmp_path


def chain(*runs, **changes):
    machine = Site.model_validate(SITE | changes)
    wish = Wish(runs=[(Path(config), tuple(overrides)) for config, *overrides in runs], site="-")
    return plan_chain(wish, machine, arrays=True), machine


def errors(*runs, after=(), **changes):
    return [each.text for each in quick_findings(*chain(*runs, **changes), after) if each.level == "error"]


@pytest.mark.usefixtures("here")
def test_nothing_speaks_against_a_good_run():
    found = quick_findings(*chain(["train.yaml"]))
    assert {each.level for each in found} == {"ok"}


@pytest.mark.parametrize(
    ("run", "changes", "text"),
    [
        (["train.yaml"], {"account_required": True}, "charges every job to an account"),
        (["train.yaml"], {"cpus_per_rank": 3}, "= 6 cores, and a node has 4"),
        (["train.yaml"], {"max_time_limit": "00:59:00"}, "the queue grants 00:59:00"),
        (["train.yaml", "data.train=[datasets/sym]"], {}, "no data set here"),
        (["train.yaml", "targets={gop: {}}"], {}, "targets.gop: no data set has it"),
        (["train.yaml", "run_dir=train.yaml/run"], {}, "train.yaml is a file"),
        (["prep.yaml", "out=prep.yaml"], {}, "prep.yaml is a file"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_must_fail_is_refused(run, changes, text, capsys):
    (found,) = errors(run, **changes)
    assert text in found
    with pytest.raises(UserInputError, match=r"\w+: "):
        refuse_impossible(*chain(run, **changes))
    assert "error" not in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_what_an_earlier_job_makes_need_not_be_there():
    run = ["train.yaml", "data.train=[datasets/sym]"]
    assert len(errors(run)) == 1
    assert not errors(["prep.yaml"], run)
    assert not errors(run, after=["17"])


@pytest.mark.usefixtures("here")
def test_warnings_are_said_and_refuse_nothing(capsys):
    refuse_impossible(*chain(["train.yaml", "job.ranks=16"]))
    assert "matsci-hpc: warning: batch: 8 graphs a step on 16 ranks" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_every_run_of_an_array_is_looked_at():
    machine = Site.model_validate(SITE)
    runs = [(Path("train.yaml"), ())]
    made = plan_chain(Wish(runs=runs, site="-", array=("batch.graphs", ["1", "64"])), machine, arrays=True)
    found = [each.text for each in quick_findings(made, machine) if each.topic == "batch"]
    assert any(each.startswith("1 graph a step") for each in found)
    assert any(each.startswith("64 graphs a step") for each in found)


def test_submit_refuses_unless_told_not_to_look(here, capsys):
    Path("site.yaml").write_text("scheduler: slurm\ncores_per_node: 1\ncpus_per_rank: 2\n")
    runs = [(Path("train.yaml"), ())]
    with pytest.raises(UserInputError, match="and a node has 1"):
        start(Wish(runs=runs, site="./site.yaml"), dry_run=False)
    assert start(Wish(runs=runs, site="./site.yaml"), dry_run=True) == 0
    printed = capsys.readouterr()
    assert "#SBATCH --cpus-per-task=2" in printed.out
    assert "submit would refuse this: node: 1 rank a node x 2 cores" in printed.err
    assert start(Wish(runs=runs, site="./site.yaml", check=False), dry_run=True) == 0
    assert not capsys.readouterr().err
    assert not (here / "run").exists()


def test_submit_needs_no_torch(here):
    Path("site.yaml").write_text("scheduler: slurm\n")
    program = (
        "import sys; from matsci_hpc.launch.start import Wish, start; from pathlib import Path; "
        "start(Wish(runs=[(Path('train.yaml'), ())], site='./site.yaml'), dry_run=True); "
        "sys.exit('torch' in sys.modules or 'pymatgen' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), cwd=here, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
